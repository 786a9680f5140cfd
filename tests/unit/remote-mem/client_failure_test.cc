#include <boost/test/unit_test.hpp>
#include <thread>

#include "base/bytes.h"
#include "base/clock.h"
#include "remote-mem/client.h"
#include "remote-mem/service.h"
#include "tests/fakes/local_memory_monitor.h"
#include "tests/unit/remote-mem/pages.h"
#include "tests/unit/remote-mem/scripted_server.h"

namespace splitvisor::remote_mem {

namespace {

using fakes::LocalMemoryMonitor;

constexpr RegionId kRegion{1};
constexpr std::uint32_t kPages = 512;
constexpr ByteCount kSize{kPages * kPageBytes};
constexpr std::uint64_t kPatienceMs = 700;

Result<std::unique_ptr<RemoteMemory>> memory_on(std::vector<Replica> replicas, std::uint64_t patience_ms = kPatienceMs)
{
    return RemoteMemory::create(
        {.regions = {{kSize, std::move(replicas)}}, .epoch = Epoch{1}, .patience_ms = patience_ms});
}

/// One region, mirrored on two mComponents, or on the first only.
struct Bench {
    LocalMemoryMonitor a{"a"};
    LocalMemoryMonitor b{"b"};
    std::unique_ptr<RemoteMemory> memory;
    std::unique_ptr<PageSession> session;

    explicit Bench(bool mirrored, std::uint64_t patience_ms = kPatienceMs)
    {
        a.create_region(kRegion, kSize);
        b.create_region(kRegion, kSize);
        std::vector<Replica> replicas{a.replica(kRegion)};
        if (mirrored) replicas.push_back(b.replica(kRegion));
        memory = memory_on(std::move(replicas), patience_ms).value();
        session = memory->open_session().value();
    }
    [[nodiscard]] std::vector<std::string> lost() const
    {
        std::vector<std::string> names;
        for (const auto& replica : memory->stats().lost) names.push_back(replica.component);
        return names;
    }
};

struct Timed {
    Status status;
    std::uint64_t ms = 0;
};

template <typename Call>
Timed timed(Call call)
{
    const auto start_ms = now_ms();
    auto status = call();
    return {std::move(status), now_ms() - start_ms};
}

/// Serves a region as a real monitor does.
void serve(RegionStore& store, fabric::Connection& connection)
{
    Service service{store, connection};
    [[maybe_unused]] const auto ended = service.serve(10'000);
}

Replica replica_at(const fabric::Endpoint& endpoint, const std::string& name)
{
    return {name, endpoint, kRegion, LocalMemoryMonitor::capability(kRegion)};
}

using Names = std::vector<std::string>;

}  // namespace

BOOST_AUTO_TEST_SUITE(client_failure)

BOOST_AUTO_TEST_CASE(a_broken_connection_is_made_anew)
{
    Bench bench{false};
    BOOST_REQUIRE(write_page(*bench.session, 1, 1).ok());
    bench.a.stop();
    bench.a.start();
    BOOST_TEST(holds(*bench.session, 1, 1));
    bench.a.stop();
    std::thread healer{[&] {
        std::this_thread::sleep_for(std::chrono::milliseconds{200});
        bench.a.start();
    }};
    const auto written = write_page(*bench.session, 1, 2);
    healer.join();
    BOOST_TEST(written.ok());
    BOOST_TEST(holds(*bench.session, 1, 2));
    BOOST_TEST(bench.memory->stats().connects == 3u);
    BOOST_TEST(bench.lost() == Names{});
}

BOOST_AUTO_TEST_CASE(the_only_replica_is_never_given_up)
{
    Bench bench{false};
    BOOST_REQUIRE(write_page(*bench.session, 1, 1).ok());
    bench.a.stop();
    const auto refused = timed([&] { return write_page(*bench.session, 1, 2); });
    BOOST_TEST((refused.status.error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(refused.ms >= kPatienceMs);
    BOOST_TEST(refused.ms < 3 * kPatienceMs);
    BOOST_TEST((read_page(*bench.session, 1).status.error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(bench.lost() == Names{});
    bench.a.start();
    BOOST_TEST(write_page(*bench.session, 1, 2).ok(), "the same call again");
    BOOST_TEST(holds(*bench.session, 1, 2));
}

BOOST_AUTO_TEST_CASE(a_restarted_monitor_has_lost_its_memory)
{
    Bench bench{false};
    BOOST_REQUIRE(write_page(*bench.session, 1, 1).ok());
    bench.a.forget_and_start();
    BOOST_TEST((read_page(*bench.session, 1).status.error().code() == ErrorCode::kNotFound));
    BOOST_TEST((write_page(*bench.session, 1, 2).error().code() == ErrorCode::kNotFound));

    Bench mirrored{true};
    BOOST_REQUIRE(write_page(*mirrored.session, 1, 1).ok());
    mirrored.a.forget_and_start();
    const auto back = timed([&] { return read_page(*mirrored.session, 1).status; });
    BOOST_TEST(back.status.ok());
    BOOST_TEST(back.ms < kPatienceMs, "what has nothing any more is not waited for");
    BOOST_TEST(holds(*mirrored.session, 1, 1));
    BOOST_TEST(write_page(*mirrored.session, 1, 2).ok());
    BOOST_TEST(mirrored.lost() == Names{"a"});
    // Even when the region is made anew under the same number, its emptiness must not be taken for the content.
    mirrored.a.create_region(kRegion, kSize);
    BOOST_TEST(holds(*mirrored.session, 1, 2));
    auto later = mirrored.memory->open_session().value();
    BOOST_TEST(holds(*later, 1, 2));
}

BOOST_AUTO_TEST_CASE(a_write_goes_on_without_a_dead_replica)
{
    Bench bench{true};
    BOOST_REQUIRE(write_page(*bench.session, 1, 1).ok());
    bench.a.stop();
    BOOST_TEST(holds(*bench.session, 1, 1), "reads fail over");
    BOOST_TEST(bench.lost() == Names{}, "and a read gives nobody up");
    const auto written = timed([&] { return write_page(*bench.session, 1, 2); });
    BOOST_TEST(written.status.ok());
    BOOST_TEST(written.ms >= kPatienceMs);
    BOOST_TEST(written.ms < 4 * kPatienceMs);
    BOOST_TEST(bench.lost() == Names{"a"});
    BOOST_TEST(timed([&] { return write_page(*bench.session, 1, 3); }).ms < kPatienceMs / 2, "the next one at once");

    // The replica comes back with what it had. It is old, and nobody must see it: neither this session nor another.
    bench.a.start();
    BOOST_TEST(holds(*bench.session, 1, 3));
    auto other = bench.memory->open_session().value();
    BOOST_TEST(holds(*other, 1, 3));
    bench.b.stop();
    BOOST_TEST((read_page(*bench.session, 1).status.error().code() == ErrorCode::kUnavailable));
    BOOST_TEST((write_page(*other, 1, 4).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_CASE(a_short_interruption_costs_no_replica)
{
    Bench bench{true, 3'000};
    BOOST_REQUIRE(write_page(*bench.session, 1, 1).ok());
    bench.b.stop();
    std::thread healer{[&] {
        std::this_thread::sleep_for(std::chrono::milliseconds{300});
        bench.b.start();
    }};
    const auto written = write_page(*bench.session, 1, 2);
    healer.join();
    BOOST_TEST(written.ok());
    BOOST_TEST(bench.lost() == Names{});
    bench.a.stop();
    BOOST_TEST(holds(*bench.session, 1, 2), "the one that was away has the write");
}

// A mirrored vNode writes and reads back without pause while one mComponent dies: nothing is lost, nothing old is seen.
BOOST_AUTO_TEST_CASE(nothing_is_lost_when_a_replica_dies_under_load)
{
    Bench bench{true, 300};
    std::atomic<std::uint32_t> wrong{0};
    std::atomic<std::uint64_t> rounds{0};
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            auto session = bench.memory->open_session().value();
            for (std::uint64_t version = 1; !stop; ++version) {
                const auto line = static_cast<std::uint32_t>(t + 3 * (version % 100));
                if (!write_page(*session, line, version) || !holds(*session, line, version)) ++wrong;
                ++rounds;
            }
        });
    }
    while (rounds < 100) std::this_thread::yield();
    bench.a.stop();
    const auto at_death = rounds.load();
    std::this_thread::sleep_for(std::chrono::milliseconds{1'500});
    bench.a.start();
    std::this_thread::sleep_for(std::chrono::milliseconds{200});
    stop = true;
    for (auto& thread : threads) thread.join();
    BOOST_TEST(wrong == 0u);
    BOOST_TEST(rounds > at_death + 10);
    BOOST_TEST(bench.lost() == Names{"a"});
}

BOOST_AUTO_TEST_CASE(a_damaged_page_is_read_elsewhere)
{
    Bench bench{true};
    std::array<Page, 4> back;
    std::array<PageRead, 4> reads;
    for (std::uint32_t line = 0; line < 4; ++line) {
        BOOST_REQUIRE(write_page(*bench.session, line, 1).ok());
        back[line].resize(kPageBytes);
        reads[line] = {.line = Line{line}, .into = back[line].data()};
    }
    // Different pages on the two: each is sound on one of them.
    bench.a.store().region_for_test(kRegion)->frame(0)[0] ^= std::byte{1};
    bench.a.store().region_for_test(kRegion)->frame(2)[0] ^= std::byte{1};
    bench.b.store().region_for_test(kRegion)->frame(1)[0] ^= std::byte{1};
    BOOST_REQUIRE(bench.session->read(reads).ok());
    for (std::uint32_t line = 0; line < 4; ++line) {
        BOOST_TEST(reads[line].present);
        BOOST_TEST((back[line] == page_of(line, 1)));
    }
    BOOST_TEST(bench.memory->stats().corrupt_pages == 2u);
    BOOST_TEST(bench.lost() == Names{});
    bench.b.store().region_for_test(kRegion)->frame(2)[0] ^= std::byte{1};
    const auto hopeless = timed([&] { return bench.session->read(reads); });
    BOOST_TEST((hopeless.status.error().code() == ErrorCode::kCorrupt));
    BOOST_TEST(hopeless.ms < kPatienceMs);
    BOOST_TEST(write_page(*bench.session, 2, 2).ok());
    BOOST_TEST(bench.session->read(reads).ok());
}

BOOST_AUTO_TEST_CASE(a_monitor_that_hangs_is_waited_for_within_patience)
{
    LocalMemoryMonitor real{"real"};
    real.create_region(kRegion, kSize);
    ScriptedServer silent{[](fabric::Connection& connection, int) { hang(connection); }};

    const auto alone = memory_on({replica_at(silent.endpoint(), "silent")}).value();
    const auto opened = timed([&]() -> Status { return alone->open_session().error(); });
    BOOST_TEST((opened.status.error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(opened.ms < 3 * kPatienceMs);

    // Answers the first question, then nothing more, not even over a new connection: whoever comes again
    // after a read has failed over must not find it well.
    ScriptedServer dying{[](fabric::Connection& connection, int number) {
        if (number > 0) return hang(connection);
        const auto first = connection.receive(-1);
        if (!first || !connection.skip_data()) return;
        if (!connection.send({.kind = first->kind, .request_id = first->request_id, .head = bytes_of(UpdateReply{}), .data = {}}))
            return;
        hang(connection);
    }};
    const auto mirrored = memory_on({replica_at(dying.endpoint(), "dying"), real.replica(kRegion)}, 2'000).value();
    auto session = mirrored->open_session().value();
    const auto first = timed([&] { return read_page(*session, 1).status; });
    BOOST_TEST(first.status.ok());
    BOOST_TEST(first.ms < 1'500u);
    const auto second = timed([&] { return read_page(*session, 1).status; });
    BOOST_TEST(second.status.ok());
    BOOST_TEST(second.ms < 200u, "once bitten");
    const auto written = timed([&] { return write_page(*session, 1, 1); });
    BOOST_TEST(written.status.ok());
    BOOST_TEST(written.ms >= 2'000u, "nobody is given up early");
    BOOST_TEST(written.ms < 6'000u);
    BOOST_REQUIRE(mirrored->stats().lost.size() == 1u);
    BOOST_TEST(mirrored->stats().lost[0].component == "dying");
}

// Answers that no monitor of ours gives: each ends in another replica's good answer, or in an error within patience.
BOOST_AUTO_TEST_CASE(a_monitor_that_answers_nonsense_is_not_believed)
{
    using Answer = std::function<Status(fabric::Connection&, const fabric::Incoming&)>;
    static Page page(2 * kPageBytes, std::byte{0x66});
    static const iovec one_page{page.data(), kPageBytes};
    static const iovec two_pages{page.data(), 2 * kPageBytes};
    static const ReadEntry stored{5, PageState::kStored, 0};
    static const ReadEntry absent{5, PageState::kAbsent, 0};
    static const ReadEntry unknown{5, static_cast<PageState>(9), 0};
    const auto send = [](fabric::Connection& connection, const fabric::Incoming& request, std::uint16_t kind_more,
                         std::uint16_t status, std::uint64_t id_more, std::span<const std::byte> head,
                         std::span<const iovec> data) {
        return connection.send({.kind = static_cast<std::uint16_t>(request.kind + kind_more),
                                .status = status,
                                .request_id = request.request_id + id_more,
                                .head = head,
                                .data = data});
    };
    const std::vector<std::pair<std::string, Answer>> answers{
        {"another id", [&](auto& c, auto& r) { return send(c, r, 0, 0, 1, bytes_of(stored), {&one_page, 1}); }},
        {"another kind", [&](auto& c, auto& r) { return send(c, r, 1, 0, 0, bytes_of(stored), {&one_page, 1}); }},
        {"no head", [&](auto& c, auto& r) { return send(c, r, 0, 0, 0, {}, {&one_page, 1}); }},
        {"two entries", [&](auto& c, auto& r) {
             return send(c, r, 0, 0, 0, bytes_of(std::array{stored, stored}), {&two_pages, 1});
         }},
        {"no data", [&](auto& c, auto& r) { return send(c, r, 0, 0, 0, bytes_of(stored), {}); }},
        {"too much data", [&](auto& c, auto& r) { return send(c, r, 0, 0, 0, bytes_of(stored), {&two_pages, 1}); }},
        {"data for an absent page",
         [&](auto& c, auto& r) { return send(c, r, 0, 0, 0, bytes_of(absent), {&one_page, 1}); }},
        {"a state nobody knows", [&](auto& c, auto& r) { return send(c, r, 0, 0, 0, bytes_of(unknown), {}); }},
        {"a status nobody knows", [&](auto& c, auto& r) { return send(c, r, 0, 999, 0, {}, {}); }},
        {"an endless error", [&](auto& c, auto& r) { return send(c, r, 0, 3, 0, {}, {&two_pages, 1}); }},
        {"nothing, and hangs up", [&](auto&, auto&) -> Status { return Error{ErrorCode::kIo, "enough"}; }},
    };
    for (const auto& [name, answer] : answers) {
        LocalMemoryMonitor real{"real"};
        real.create_region(kRegion, kSize);
        ScriptedServer odd{[&](fabric::Connection& connection, int) {
            while (true) {
                const auto request = connection.receive(-1);
                if (!request) return;
                const bool check = request->kind == static_cast<std::uint16_t>(Request::kCheck);
                const auto sent = check ? send(connection, *request, 0, 0, 0, bytes_of(UpdateReply{}), {})
                                        : answer(connection, *request);
                if (!sent || !connection.skip_data()) return;
            }
        }};
        const auto alone = memory_on({replica_at(odd.endpoint(), "odd")}, 100).value();
        auto session = alone->open_session().value();
        const auto refused = timed([&] { return read_page(*session, 1).status; });
        BOOST_TEST((!refused.status.ok() && refused.status.error().code() == ErrorCode::kUnavailable), name);
        BOOST_TEST(refused.ms < 3'000u, name);

        const auto mirrored = memory_on({replica_at(odd.endpoint(), "odd"), real.replica(kRegion)}, 2'000).value();
        const WriteEntry entry{8, 1, 0};
        const Access access{kRegion, LocalMemoryMonitor::capability(kRegion), Epoch{1}};
        BOOST_REQUIRE(real.store().write(access, {&entry, 1}, page_of(1, 8)).ok());
        session = mirrored->open_session().value();
        BOOST_TEST(holds(*session, 1, 8), name);
    }
}

// Session 1 is cut off from one replica, session 2 from the other. If both went on, each write would be on a replica
// that the other session gave up. Exactly one may succeed, and what it wrote stays readable.
BOOST_AUTO_TEST_CASE(two_half_cut_sessions_do_not_split_the_mirror)
{
    RegionStore store_a{ByteCount{64 * kMiB}};
    RegionStore store_b{ByteCount{64 * kMiB}};
    const auto secret = LocalMemoryMonitor::capability(kRegion);
    BOOST_REQUIRE(store_a.create_region(kRegion, kSize, secret, Epoch{1}).ok());
    BOOST_REQUIRE(store_b.create_region(kRegion, kSize, secret, Epoch{1}).ok());
    // Each session's first connection is good until `cut`; A then fails session 1 (its connection 0, and all new ones
    // hang), B fails session 2 (its connection 1).
    std::atomic<bool> cut{false};
    const auto script = [&cut](RegionStore& store, int cut_connection) {
        return [&cut, &store, cut_connection](fabric::Connection& connection, int number) {
            if (number >= 2) return hang(connection);
            if (number != cut_connection) return serve(store, connection);
            // Serves one request, the check at the beginning, and nothing later.
            const auto request = connection.receive(-1);
            if (!request || !connection.skip_data()) return;
            if (!connection.send({.kind = request->kind, .request_id = request->request_id, .head = bytes_of(UpdateReply{}), .data = {}})) return;
            hang(connection);
        };
    };
    ScriptedServer a{script(store_a, 0)};
    ScriptedServer b{script(store_b, 1)};
    const auto memory = memory_on({replica_at(a.endpoint(), "a"), replica_at(b.endpoint(), "b")}).value();
    auto session1 = memory->open_session().value();
    auto session2 = memory->open_session().value();
    bool first = false;
    std::thread other{[&] { first = write_page(*session1, 1, 1).ok(); }};
    const bool second = write_page(*session2, 2, 1).ok();
    other.join();
    BOOST_TEST((first != second));
    BOOST_REQUIRE(memory->stats().lost.size() == 1u);
    BOOST_TEST(memory->stats().lost[0].component == (first ? "a" : "b"));
    BOOST_TEST(holds(first ? *session1 : *session2, first ? 1 : 2, 1));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::remote_mem
