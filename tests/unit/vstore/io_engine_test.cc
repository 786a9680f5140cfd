#include "vstore/io_engine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "fixtures.h"

namespace splitvisor::vstore {

namespace {

constexpr std::size_t kFileBytes = 4 * kMiB;

class EngineFile {
  public:
    EngineFile(const std::string& parent, IoEngine::Options options, int flags = O_RDWR) : directory_{parent}
    {
        const Fd made{::open((directory_ / "file").c_str(), O_RDWR | O_CREAT, 0600)};
        BOOST_REQUIRE(made.valid());
        BOOST_REQUIRE(::ftruncate(made.get(), kFileBytes) == 0);
        file_ = Fd{::open((directory_ / "file").c_str(), flags)};
        auto engine = IoEngine::create(file_.get(), options);
        BOOST_REQUIRE(engine.ok());
        engine_ = std::move(*engine);
    }
    int run(IoOperation& operation)
    {
        if (!engine_->start(operation)) BOOST_REQUIRE(engine_->wait() == &operation);
        return operation.error_number;
    }
    int run(IoKind kind, std::uint64_t offset, std::uint64_t length, std::byte* buffer = nullptr)
    {
        IoOperation operation;
        operation.kind = kind;
        operation.offset = offset;
        operation.length = length;
        operation.buffer = buffer;
        return run(operation);
    }
    [[nodiscard]] std::vector<std::byte> content() const
    {
        std::vector<std::byte> bytes(kFileBytes);
        BOOST_REQUIRE(::pread(file_.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(kFileBytes));
        return bytes;
    }
    [[nodiscard]] std::uint64_t allocated() const
    {
        struct stat status {};
        BOOST_REQUIRE(::fstat(file_.get(), &status) == 0);
        return static_cast<std::uint64_t>(status.st_blocks) * 512;
    }
    [[nodiscard]] int fd() const { return file_.get(); }
    [[nodiscard]] IoEngine& engine() { return *engine_; }

  private:
    TemporaryDirectory directory_;
    Fd file_;
    std::unique_ptr<IoEngine> engine_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(io_engine)

BOOST_AUTO_TEST_CASE(random_operations_match_a_model_on_every_file_system_and_option)
{
    for (const char* const parent : {"/var/tmp", "/dev/shm"}) {
        for (const bool write_through : {false, true}) {
            for (const bool fallocate : {true, false}) {
                EngineFile file{parent, {.depth = 8, .write_through = write_through, .fallocate = fallocate}};
                std::vector<std::byte> model(kFileBytes);
                std::mt19937_64 random{42};
                for (int round = 0; round < 150; ++round) {
                    const auto sectors = 1 + random() % 1500;
                    auto offset = random() % (kFileBytes / 512 - sectors) * 512;
                    auto length = sectors * 512;
                    if (round % 3 == 0) {
                        offset = offset / 4096 * 4096;
                        length = (length + 4095) / 4096 * 4096 > kFileBytes - offset ? 4096 : (length + 4095) / 4096 * 4096;
                    }
                    auto bytes = pattern(length, random());
                    const auto range = std::span{model}.subspan(offset, length);
                    switch (random() % 5) {
                    case 0:
                        BOOST_REQUIRE(file.run(IoKind::kRead, offset, length, bytes.data()) == 0);
                        BOOST_REQUIRE(std::ranges::equal(bytes, range));
                        break;
                    case 1:
                        BOOST_REQUIRE(file.run(IoKind::kWriteZeroes, offset, length) == 0);
                        std::ranges::fill(range, std::byte{0});
                        break;
                    case 2:
                        BOOST_REQUIRE(file.run(IoKind::kDiscard, offset, length) == 0);
                        if (fallocate) std::ranges::fill(range, std::byte{0});
                        break;
                    case 3: BOOST_REQUIRE(file.run(IoKind::kSync, 0, 0) == 0); [[fallthrough]];
                    default:
                        BOOST_REQUIRE(file.run(IoKind::kWrite, offset, length, bytes.data()) == 0);
                        std::ranges::copy(bytes, range.begin());
                    }
                }
                BOOST_CHECK(file.content() == model);
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(discards_give_space_back)
{
    EngineFile file{"/var/tmp", {}};
    auto bytes = pattern(kFileBytes, 1);
    BOOST_REQUIRE(file.run(IoKind::kWrite, 0, kFileBytes, bytes.data()) == 0);
    BOOST_REQUIRE(file.run(IoKind::kSync, 0, 0) == 0);
    BOOST_TEST(file.allocated() >= kFileBytes);
    BOOST_REQUIRE(file.run(IoKind::kDiscard, 0, kFileBytes) == 0);
    BOOST_TEST(file.allocated() < 64 * kKiB);
    BOOST_CHECK(file.content() == std::vector<std::byte>(kFileBytes));
}

BOOST_AUTO_TEST_CASE(failures_are_reported)
{
    EngineFile file{"/var/tmp", {}, O_RDONLY};
    auto bytes = pattern(4096, 1);
    BOOST_TEST(file.run(IoKind::kWrite, 0, 4096, bytes.data()) == EBADF);
    BOOST_TEST(file.run(IoKind::kWrite, 512, 512, bytes.data()) == EBADF);
    BOOST_TEST(file.run(IoKind::kWriteZeroes, 0, 4096) == EBADF);
    BOOST_TEST(file.run(IoKind::kDiscard, 0, 4096) == EBADF);
    BOOST_TEST(file.run(IoKind::kRead, 0, 4096, bytes.data()) == 0);
    BOOST_TEST(file.run(IoKind::kRead, kFileBytes - 512, 4096, bytes.data()) == EIO);
}

BOOST_AUTO_TEST_CASE(many_operations_are_under_way_at_once)
{
    constexpr unsigned kDepth = 256;
    EngineFile file{"/var/tmp", {.depth = kDepth}};
    std::vector<IoOperation> operations(kDepth);
    std::vector<std::vector<std::byte>> buffers;
    for (unsigned i = 0; i < kDepth; ++i) buffers.push_back(pattern(kFileBytes / kDepth - 512, i));
    unsigned pending = 0;
    for (unsigned i = 0; i < kDepth; ++i) {
        operations[i].kind = IoKind::kWrite;
        operations[i].offset = i * (kFileBytes / kDepth) + 512;
        operations[i].length = buffers[i].size();
        operations[i].buffer = buffers[i].data();
        if (!file.engine().start(operations[i])) ++pending;
    }
    file.engine().wake();
    unsigned wakes = 0;
    while (pending > 0) {
        const auto* const done = file.engine().wait();
        if (done == nullptr) {
            ++wakes;
        } else {
            BOOST_TEST(done->error_number == 0);
            --pending;
        }
    }
    if (wakes == 0) BOOST_TEST(file.engine().wait() == nullptr);
    const auto content = file.content();
    for (unsigned i = 0; i < kDepth; ++i) {
        BOOST_REQUIRE(std::memcmp(content.data() + operations[i].offset, buffers[i].data(), buffers[i].size()) == 0);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
