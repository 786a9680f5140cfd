#include "vstore/volume_store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <set>

#include "fixtures.h"

namespace splitvisor::vstore {

static void write_file(const std::string& path, std::span<const std::byte> bytes)
{
    std::ofstream file{path, std::ios::binary | std::ios::trunc};
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    BOOST_REQUIRE(file.good());
}

static std::vector<std::byte> content_of(const std::string& path)
{
    std::ifstream file{path, std::ios::binary};
    BOOST_REQUIRE(file.good());
    std::vector<std::byte> bytes(std::filesystem::file_size(path));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
}

/// An image of `size` bytes with 64 KiB of data at both ends and a hole between.
static std::vector<std::byte> make_image(const std::string& path, std::size_t size)
{
    std::vector<std::byte> content(size);
    const auto data = pattern(64 * kKiB, 5);
    std::ranges::copy(data, content.begin());
    std::ranges::copy(data, content.end() - static_cast<std::ptrdiff_t>(data.size()));
    write_file(path, data);
    BOOST_REQUIRE(::truncate(path.c_str(), static_cast<off_t>(size - data.size())) == 0);
    std::ofstream file{path, std::ios::binary | std::ios::app};
    file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
    return content;
}

static std::set<std::string> names_in(const std::string& directory)
{
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator{directory}) names.insert(entry.path().filename());
    return names;
}

BOOST_AUTO_TEST_SUITE(volume_store)

BOOST_AUTO_TEST_CASE(volumes_outlive_the_store)
{
    const TemporaryDirectory directory;
    {
        const auto store = open_store(directory.path());
        require_ok(store->create(record_of(3, 10 * kMiB, 4)));
        BOOST_TEST(store->used().value() == 10 * kMiB);
    }
    const auto store = open_store(directory.path());
    const auto volume = store->find(VolumeId{3});
    BOOST_REQUIRE(volume);
    BOOST_TEST(volume->size().value() == 10 * kMiB);
    BOOST_TEST(volume->epoch().value() == 4u);
    BOOST_TEST(store->used().value() == 10 * kMiB);
    BOOST_TEST(!store->find(VolumeId{4}));
}

BOOST_AUTO_TEST_CASE(creating_again_is_no_error_and_another_is)
{
    const TemporaryDirectory directory;
    const auto store = open_store(directory.path());
    const auto record = record_of(1, 1 * kMiB, 2);
    require_ok(store->create(record));
    write_file(directory / "volumes/1.raw", pattern(1 * kMiB, 1));
    require_ok(store->create(record));
    BOOST_CHECK(content_of(directory / "volumes/1.raw") == pattern(1 * kMiB, 1));

    auto other = record;
    other.size = ByteCount{2 * kMiB};
    check_code(store->create(other), ErrorCode::kExists);
    other = record;
    other.capability = capability_of(99);
    check_code(store->create(other), ErrorCode::kExists);
    other = record;
    other.epoch = Epoch{1};
    require_ok(store->create(other));
    BOOST_TEST(store->find(VolumeId{1})->epoch().value() == 2u);
    BOOST_TEST(store->used().value() == 1 * kMiB);
}

BOOST_AUTO_TEST_CASE(bad_sizes_are_refused)
{
    const TemporaryDirectory directory;
    const auto store = open_store(directory.path());
    for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{511}, 1 * kMiB + 1, ~std::uint64_t{511}}) {
        check_code(store->create(record_of(1, size)), ErrorCode::kInvalid);
    }
    BOOST_TEST(names_in(directory / "volumes").empty());
}

BOOST_AUTO_TEST_CASE(capacity_is_never_exceeded)
{
    const TemporaryDirectory directory;
    const auto store = open_store(directory.path(), ByteCount{10 * kMiB});
    std::vector<std::thread> threads;
    std::atomic<int> made{0};
    for (std::uint64_t id = 1; id <= 8; ++id) {
        threads.emplace_back([&, id] {
            const auto status = store->create(record_of(id, 3 * kMiB));
            if (status) {
                ++made;
            } else if (status.error().code() != ErrorCode::kNoRoom) {
                made = 1000;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    BOOST_TEST(made == 3);
    BOOST_TEST(store->used().value() == 9 * kMiB);
    const auto refused = store->create(record_of(20, 2 * kMiB));
    check_code(refused, ErrorCode::kNoRoom);
    BOOST_TEST(refused.error().message().find("1 MiB") != std::string::npos);

    for (std::uint64_t id = 1; id <= 8; ++id) require_ok(store->remove(VolumeId{id}));
    require_ok(store->create(record_of(30, 10 * kMiB)));
}

BOOST_AUTO_TEST_CASE(the_default_capacity_is_what_is_free)
{
    const TemporaryDirectory directory;
    const auto store = VolumeStore::open({.directory = directory.path(), .capacity = {}});
    BOOST_REQUIRE(store.ok());
    BOOST_TEST((*store)->capacity().value() > 1 * kMiB);
    check_code((*store)->create(record_of(1, (*store)->capacity().value() / 512 * 512 + 512)), ErrorCode::kNoRoom);
}

BOOST_AUTO_TEST_CASE(images_are_copied_with_their_holes)
{
    for (const char* const parent : {"/var/tmp", "/dev/shm"}) {
        const TemporaryDirectory directory{parent};
        const auto store = open_store(directory.path());
        const auto image = make_image(directory / "images/debian-12.img", 32 * kMiB);
        write_file(directory / "images/.hidden.img", {});
        write_file(directory / "images/readme.txt", {});
        std::filesystem::create_symlink("/etc/hostname", directory / "images/link.img");
        BOOST_TEST(store->images() == std::vector<std::string>{"debian-12"}, boost::test_tools::per_element());

        auto record = record_of(1, 48 * kMiB);
        record.image = "debian-12";
        require_ok(store->create(record));
        auto expected = image;
        expected.resize(48 * kMiB);
        BOOST_CHECK(content_of(directory / "volumes/1.raw") == expected);
        struct stat status {};
        BOOST_REQUIRE(::stat((directory / "volumes/1.raw").c_str(), &status) == 0);
        BOOST_TEST(static_cast<std::uint64_t>(status.st_blocks) * 512 < 1 * kMiB);

        record.image = "debian-13";
        check_code(store->create(record), ErrorCode::kExists);
        record.id = VolumeId{2};
        check_code(store->create(record), ErrorCode::kNotFound);
        record.image = "../images/debian-12";
        check_code(store->create(record), ErrorCode::kInvalid);
        record.image = "link";
        BOOST_TEST(!store->create(record).ok());
        record.image = "debian-12";
        record.size = ByteCount{16 * kMiB};
        check_code(store->create(record), ErrorCode::kInvalid);
        BOOST_TEST(names_in(directory / "volumes") == (std::set<std::string>{"1.raw", "1.meta"}),
                   boost::test_tools::per_element());
        BOOST_TEST(store->used().value() == 48 * kMiB);
    }
}

BOOST_AUTO_TEST_CASE(epochs_never_go_back)
{
    const TemporaryDirectory directory;
    {
        const auto store = open_store(directory.path());
        require_ok(store->create(record_of(1, 1 * kMiB, 5)));
        check_code(store->set_epoch(VolumeId{1}, Epoch{4}), ErrorCode::kStale);
        require_ok(store->set_epoch(VolumeId{1}, Epoch{5}));
        require_ok(store->set_epoch(VolumeId{1}, Epoch{9}));
        check_code(store->set_epoch(VolumeId{1}, Epoch{8}), ErrorCode::kStale);
        check_code(store->set_epoch(VolumeId{2}, Epoch{1}), ErrorCode::kNotFound);
    }
    const auto store = open_store(directory.path());
    BOOST_TEST(store->find(VolumeId{1})->epoch().value() == 9u);
    check_code(store->set_epoch(VolumeId{1}, Epoch{8}), ErrorCode::kStale);
    require_ok(store->create(record_of(1, 1 * kMiB, 5)));
    BOOST_TEST(store->find(VolumeId{1})->epoch().value() == 9u);
}

BOOST_AUTO_TEST_CASE(each_request_needs_capability_and_epoch)
{
    const TemporaryDirectory directory;
    const auto store = open_store(directory.path());
    const auto record = record_of(1, 1 * kMiB, 5);
    require_ok(store->create(record));
    const auto volume = store->find(VolumeId{1});
    RequestHead head;
    head.volume = 1;
    head.epoch = 5;
    head.capability = record.capability;
    require_ok(volume->admit(head));
    head.epoch = 4;
    check_code(volume->admit(head), ErrorCode::kStale);
    head.epoch = 6;
    check_code(volume->admit(head), ErrorCode::kDenied);
    head.epoch = 5;
    for (auto& byte : head.capability) {
        const auto kept = byte;
        byte ^= std::byte{1};
        check_code(volume->admit(head), ErrorCode::kDenied);
        byte = kept;
    }
    head.volume = 2;
    check_code(volume->admit(head), ErrorCode::kDenied);
    head.volume = 1;
    require_ok(store->remove(VolumeId{1}));
    check_code(volume->admit(head), ErrorCode::kNotFound);
}

BOOST_AUTO_TEST_CASE(what_a_crash_leaves_is_cleared_and_what_is_damaged_is_kept)
{
    const TemporaryDirectory directory;
    {
        const auto store = open_store(directory.path());
        for (const std::uint64_t id : {1u, 2u, 3u, 4u}) require_ok(store->create(record_of(id, 1 * kMiB)));
    }
    write_file(directory / "volumes/9.raw", pattern(4096, 1));       // crashed before the record
    write_file(directory / "volumes/1.meta.tmp", pattern(100, 1));   // crashed while the record was written
    write_file(directory / "volumes/2.meta", pattern(184, 1));       // a damaged record
    BOOST_REQUIRE(::truncate((directory / "volumes/3.raw").c_str(), 4096) == 0);
    std::filesystem::copy_file(directory / "volumes/1.meta", directory / "volumes/5.meta");  // of another volume
    write_file(directory / "volumes/notes.txt", {});

    const auto store = open_store(directory.path());
    BOOST_TEST(store->find(VolumeId{1}));
    BOOST_TEST(store->find(VolumeId{4}));
    for (const std::uint64_t id : {2u, 3u, 5u}) {
        BOOST_TEST(!store->find(VolumeId{id}));
        check_code(store->create(record_of(id, 1 * kMiB)), ErrorCode::kCorrupt);
    }
    BOOST_TEST(names_in(directory / "volumes") ==
                   (std::set<std::string>{"1.raw", "1.meta", "2.raw", "2.meta", "3.raw", "3.meta", "4.raw", "4.meta",
                                          "5.meta", "notes.txt"}),
               boost::test_tools::per_element());
    require_ok(store->remove(VolumeId{2}));
    require_ok(store->create(record_of(2, 1 * kMiB)));
}

BOOST_AUTO_TEST_CASE(two_stores_never_share_a_directory)
{
    const TemporaryDirectory directory;
    auto store = open_store(directory.path());
    check_code(VolumeStore::open({.directory = directory.path(), .capacity = {}}), ErrorCode::kUnavailable);
    store.reset();
    open_store(directory.path());
}

/// Makes, changes and deletes volumes until it is killed.
[[noreturn]] static void churn(const std::string& directory, std::uint64_t seed)
{
    auto store = VolumeStore::open({.directory = directory, .capacity = ByteCount{kGiB}});
    if (!store) ::_exit(1);
    std::mt19937_64 random{seed};
    for (std::uint64_t epoch = 1;; ++epoch) {
        auto record = record_of(1 + random() % 4, 2 * kMiB, epoch);
        record.image = "image";
        const auto status = random() % 3 == 0 ? (*store)->remove(record.id) : (*store)->create(record);
        if (!status) ::_exit(2);
    }
}

BOOST_AUTO_TEST_CASE(a_kill_at_any_moment_leaves_each_volume_whole_or_absent)
{
    const TemporaryDirectory directory;
    open_store(directory.path());
    auto expected = make_image(directory / "images/image.img", 1 * kMiB);
    expected.resize(2 * kMiB);
    std::mt19937_64 random{11};
    std::size_t found = 0;
    for (int round = 0; round < 40; ++round) {
        const auto child = ::fork();
        BOOST_REQUIRE(child >= 0);
        if (child == 0) churn(directory.path(), static_cast<std::uint64_t>(round));
        ::usleep(static_cast<useconds_t>(1000 + random() % 60'000));
        BOOST_REQUIRE(::kill(child, SIGKILL) == 0);
        int status = 0;
        BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
        BOOST_REQUIRE(WIFSIGNALED(status));

        const auto store = open_store(directory.path());
        std::set<std::string> served;
        for (std::uint64_t id = 1; id <= 4; ++id) {
            if (!store->find(VolumeId{id})) continue;
            ++found;
            served.insert({std::to_string(id) + ".raw", std::to_string(id) + ".meta"});
            BOOST_CHECK(content_of(directory / ("volumes/" + std::to_string(id) + ".raw")) == expected);
        }
        BOOST_TEST(names_in(directory / "volumes") == served, boost::test_tools::per_element());
    }
    BOOST_TEST(found > 0u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
