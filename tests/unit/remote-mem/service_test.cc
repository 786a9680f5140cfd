#include <sys/socket.h>

#include <boost/test/unit_test.hpp>
#include <random>
#include <thread>

#include "base/bytes.h"
#include "base/thread.h"
#include "fabric/stream_connection.h"
#include "remote-mem/service.h"
#include "tests/unit/remote-mem/pages.h"

namespace splitvisor::remote_mem {

namespace {

constexpr RegionId kOurs{1};
constexpr RegionId kTheirs{2};
constexpr std::uint32_t kPages = 64;
constexpr ByteCount kSize{kPages * kPageBytes};
constexpr Capability kOurSecret{std::byte{1}};
constexpr Capability kTheirSecret{std::byte{2}};

/// A Service over a socket pair, and the peer's end.
struct Bench {
    RegionStore store{ByteCount{2 * kSize.value()}};
    std::unique_ptr<fabric::Connection> peer;
    std::unique_ptr<fabric::Connection> own;
    std::optional<Error> ended;
    Thread thread;

    explicit Bench(int admission_ms = 10'000)
    {
        SPLITVISOR_CHECK(store.create_region(kOurs, kSize, kOurSecret, Epoch{1}).ok());
        SPLITVISOR_CHECK(store.create_region(kTheirs, kSize, kTheirSecret, Epoch{1}).ok());
        std::array<int, 2> ends{};
        SPLITVISOR_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
        peer = std::make_unique<fabric::StreamConnection>(Fd{ends[0]}, "server", 5'000);
        own = std::make_unique<fabric::StreamConnection>(Fd{ends[1]}, "peer", 5'000);
        thread = Thread{"serve", [this, admission_ms] {
                            Service service{store, *own};
                            ended = service.serve(admission_ms);
                            own->shutdown();
                        }};
    }
    ~Bench()
    {
        peer->shutdown();
        thread.join();
    }

    struct Reply {
        bool arrived = false;
        std::uint16_t status = 0xffff;  ///< so that no answer is not a good one
        std::vector<std::byte> head;
        std::vector<std::byte> data;
    };
    Reply ask(std::uint16_t kind, const std::vector<std::byte>& head, std::vector<std::byte> data = {})
    {
        const iovec vector{data.data(), data.size()};
        const auto sent = peer->send({.kind = kind, .request_id = 5, .head = head, .data = {&vector, 1}});
        if (!sent) return {};
        const auto incoming = peer->receive(5'000);
        if (!incoming || incoming->request_id != 5 || incoming->kind != kind) return {};
        Reply reply{true, incoming->status, {incoming->head.begin(), incoming->head.end()}, {}};
        reply.data.resize(incoming->data_bytes);
        const iovec into{reply.data.data(), reply.data.size()};
        reply.arrived = peer->receive_data({&into, 1}).ok();
        return reply;
    }
};

constexpr auto kRead = static_cast<std::uint16_t>(Request::kRead);
constexpr auto kWrite = static_cast<std::uint16_t>(Request::kWrite);
constexpr auto kCheck = static_cast<std::uint16_t>(Request::kCheck);

RequestHeader header_of(std::uint32_t page_count)
{
    return {.region = kOurs.value(), .epoch = 1, .capability = kOurSecret, .page_count = page_count, .reserved = 0};
}

template <typename... Parts>
std::vector<std::byte> joined(const Parts&... parts)
{
    std::vector<std::byte> bytes((sizeof(Parts) + ... + 0));
    std::size_t offset = 0;
    ((std::memcpy(bytes.data() + offset, &parts, sizeof parts), offset += sizeof parts), ...);
    return bytes;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(service)

BOOST_AUTO_TEST_CASE(answers_what_is_asked)
{
    Bench bench;
    BOOST_TEST(bench.ask(kCheck, joined(header_of(0))).status == 0);
    const auto page = page_of(3, 8);
    const auto written = bench.ask(kWrite, joined(header_of(1), WriteEntry{8, 3, 0}), page);
    BOOST_REQUIRE(written.arrived);
    BOOST_TEST(written.status == 0);
    BOOST_TEST(load<UpdateReply>(written.head).stale_pages == 0u);
    const auto old = bench.ask(kWrite, joined(header_of(1), WriteEntry{7, 3, 0}), page_of(3, 7));
    BOOST_TEST(load<UpdateReply>(old.head).stale_pages == 1u);
    const auto back = bench.ask(kRead, joined(header_of(3), std::uint32_t{2}, std::uint32_t{3}, std::uint32_t{4}));
    BOOST_REQUIRE(back.head.size() == 3 * sizeof(ReadEntry));
    BOOST_TEST((load<ReadEntry>(back.head, 0).state == PageState::kAbsent));
    BOOST_TEST((load<ReadEntry>(back.head, 16).state == PageState::kStored));
    BOOST_TEST(load<ReadEntry>(back.head, 16).version == 8u);
    BOOST_TEST((back.data == page));
}

BOOST_AUTO_TEST_CASE(answers_a_bad_request_and_goes_on)
{
    Bench bench;
    BOOST_REQUIRE(bench.ask(kCheck, joined(header_of(0))).status == 0);
    const auto code = [&](std::uint16_t kind, const std::vector<std::byte>& head, std::vector<std::byte> data = {}) {
        const auto reply = bench.ask(kind, head, std::move(data));
        return reply.arrived && reply.status != 0 && !reply.data.empty() ? code_of(reply.status) : ErrorCode::kIo;
    };
    const auto entry = WriteEntry{1, 0, 0};
    BOOST_TEST((code(kRead, {}) == ErrorCode::kInvalid), "no head");
    BOOST_TEST((code(kRead, std::vector<std::byte>(39)) == ErrorCode::kInvalid), "a short head");
    BOOST_TEST((code(kRead, joined(header_of(1))) == ErrorCode::kInvalid), "no entries");
    BOOST_TEST((code(kRead, joined(header_of(0), 1u)) == ErrorCode::kInvalid), "too many entries");
    BOOST_TEST((code(kRead, joined(header_of(~0u))) == ErrorCode::kInvalid), "a count that overflows");
    BOOST_TEST((code(kRead, joined(header_of(257), std::array<std::uint32_t, 257>{})) == ErrorCode::kInvalid));
    BOOST_TEST((code(kRead, joined(header_of(1), 0u), Page(1)) == ErrorCode::kInvalid), "data nobody wants");
    BOOST_TEST((code(kRead, joined(header_of(1), kPages)) == ErrorCode::kInvalid), "a page outside");
    BOOST_TEST((code(kWrite, joined(header_of(1), entry)) == ErrorCode::kInvalid), "no page");
    BOOST_TEST((code(kWrite, joined(header_of(1), entry), Page(4'095)) == ErrorCode::kInvalid), "half a page");
    BOOST_TEST((code(kWrite, joined(header_of(1), entry), Page(2 * kPageBytes)) == ErrorCode::kInvalid));
    BOOST_TEST((code(kWrite, joined(header_of(1), entry), Page(fabric::kMaxDataBytes)) == ErrorCode::kInvalid));
    BOOST_TEST((code(0, joined(header_of(0))) == ErrorCode::kUnsupported));
    BOOST_TEST((code(99, joined(header_of(0))) == ErrorCode::kUnsupported));
    auto header = header_of(0);
    header.epoch = 0;
    BOOST_TEST((code(kCheck, joined(header)) == ErrorCode::kStale));
    header.epoch = 1;
    header.region = kTheirs.value();
    BOOST_TEST((code(kCheck, joined(header)) == ErrorCode::kDenied));
    header.region = 77;
    BOOST_TEST((code(kCheck, joined(header)) == ErrorCode::kNotFound));
    BOOST_TEST(bench.ask(kCheck, joined(header_of(0))).status == 0, "the connection still works");
    BOOST_TEST(bench.store.stats().pages_written == 0u);
}

BOOST_AUTO_TEST_CASE(sends_away_who_has_no_right)
{
    Bench bench;
    auto header = header_of(0);
    header.capability = kTheirSecret;
    int answered = 0;
    while (answered < 100 && bench.ask(kCheck, joined(header)).arrived) ++answered;
    BOOST_TEST(answered >= 1);
    BOOST_TEST(answered < 20);
    bench.thread.join();
    BOOST_REQUIRE(bench.ended.has_value());
    BOOST_TEST((bench.ended->code() == ErrorCode::kDenied));
}

BOOST_AUTO_TEST_CASE(does_not_wait_for_ever_for_a_stranger)
{
    Bench bench{100};
    bench.thread.join();
    BOOST_REQUIRE(bench.ended.has_value());
    BOOST_TEST((bench.ended->code() == ErrorCode::kTimeout));
}

BOOST_AUTO_TEST_CASE(lets_a_known_peer_be_silent)
{
    Bench bench{2'000};
    BOOST_REQUIRE(bench.ask(kCheck, joined(header_of(0))).status == 0);
    std::this_thread::sleep_for(std::chrono::milliseconds{2'300});
    BOOST_TEST(bench.ask(kCheck, joined(header_of(0))).status == 0);
}

// Well-framed nonsense: random numbers, heads, counts and data, now and then near the truth. Every one gets an answer,
// the connection lives, and the region whose capability the peer does not have stays as it was.
BOOST_AUTO_TEST_CASE(survives_random_requests)
{
    Bench bench;
    const auto their_page = page_of(0, 1);
    const WriteEntry their_entry{1, 0, 0};
    const Access theirs{kTheirs, kTheirSecret, Epoch{1}};
    BOOST_REQUIRE(bench.store.write(theirs, {&their_entry, 1}, their_page).ok());
    BOOST_REQUIRE(bench.ask(kCheck, joined(header_of(0))).status == 0);

    std::mt19937 random{77};
    const auto below = [&](std::uint32_t limit) { return std::uniform_int_distribution<std::uint32_t>{0, limit - 1}(random); };
    std::uint32_t unanswered = 0;
    std::uint32_t accepted = 0;
    for (int round = 0; round < 6'000; ++round) {
        auto header = header_of(below(8) == 0 ? static_cast<std::uint32_t>(random()) : below(6));
        if (below(4) == 0) header.region = below(4);
        if (below(6) == 0) header.epoch = below(3);
        if (below(6) == 0) header.capability[below(16)] ^= static_cast<std::byte>(below(256));
        auto head = joined(header);
        const auto kind = static_cast<std::uint16_t>(below(6));
        const auto entry_bytes = kind == kRead ? 4u : 16u;
        const auto entries = below(3) == 0 ? below(8) : header.page_count % 8;
        for (std::uint32_t i = 0; i < entries * entry_bytes / 4; ++i) {
            const auto word = joined(below(10) == 0 ? static_cast<std::uint32_t>(random()) : below(kPages));
            head.insert(head.end(), word.begin(), word.end());
        }
        if (below(10) == 0) head.resize(below(static_cast<std::uint32_t>(head.size()) + 1));
        const auto pages = below(3) == 0 ? below(4) : (kind == kWrite ? header.page_count % 8 : 0);
        Page data(pages * kPageBytes, static_cast<std::byte>(random()));
        if (below(10) == 0) data.resize(below(10'000));
        const auto reply = bench.ask(kind, head, std::move(data));
        unanswered += reply.arrived ? 0u : 1u;
        accepted += reply.arrived && reply.status == 0 ? 1u : 0u;
        if (!reply.arrived) break;
    }
    BOOST_TEST(unanswered == 0u);
    BOOST_TEST(accepted > 300u);
    const std::uint32_t index = 0;
    ReadEntry entry{};
    Page page(kPageBytes);
    BOOST_REQUIRE(bench.store.read(theirs, {&index, 1}, {&entry, 1}, page).ok());
    BOOST_TEST(entry.version == 1u);
    BOOST_TEST((page == their_page));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::remote_mem
