#include "vstore/session_gate.h"

#include <atomic>
#include <thread>

#include "base/clock.h"
#include "fixtures.h"

namespace splitvisor::vstore {

namespace {

struct FakeSession final : Fenceable {
    void fence() override { ++fences; }
    std::atomic<int> fences{0};
};

std::uint64_t soon() { return now_ms() + 10'000; }

}  // namespace

BOOST_AUTO_TEST_SUITE(session_gate)

BOOST_AUTO_TEST_CASE(a_newer_session_enters_when_the_older_has_left)
{
    SessionGate gate;
    FakeSession older;
    FakeSession newer;
    require_ok(gate.enter({7, 1}, older, soon()));
    check_code(gate.enter({7, 2}, newer, now_ms() + 30), ErrorCode::kUnavailable);
    BOOST_TEST(older.fences == 1);

    std::atomic<bool> entered{false};
    std::thread thread{[&] {
        entered = gate.enter({7, 3}, newer, soon()).ok();
    }};
    ::usleep(30'000);
    BOOST_TEST(!entered);
    gate.leave(older);
    thread.join();
    BOOST_TEST(entered);
    gate.leave(newer);
}

BOOST_AUTO_TEST_CASE(older_sessions_are_refused)
{
    SessionGate gate;
    FakeSession session;
    require_ok(gate.enter({7, 5}, session, soon()));
    FakeSession late;
    check_code(gate.enter({7, 5}, late, soon()), ErrorCode::kStale);
    check_code(gate.enter({7, 4}, late, soon()), ErrorCode::kStale);
    BOOST_TEST(session.fences == 0);
    gate.leave(session);
    check_code(gate.enter({7, 5}, late, soon()), ErrorCode::kStale);
    require_ok(gate.enter({8, 1}, session, soon()));
    gate.leave(session);
    // Client 7 lost to client 8, for good.
    check_code(gate.enter({7, 100}, late, soon()), ErrorCode::kStale);
    require_ok(gate.enter({8, 2}, session, soon()));
    gate.leave(session);
}

BOOST_AUTO_TEST_CASE(of_two_that_wait_the_newer_wins)
{
    SessionGate gate;
    FakeSession inside;
    FakeSession first;
    FakeSession second;
    require_ok(gate.enter({1, 1}, inside, soon()));
    Status first_status;
    std::thread waiting{[&] { first_status = gate.enter({1, 2}, first, soon()); }};
    while (inside.fences < 1) std::this_thread::yield();
    std::thread newer{[&] { require_ok(gate.enter({1, 3}, second, soon())); }};
    waiting.join();
    check_code(first_status, ErrorCode::kStale);
    gate.leave(inside);
    newer.join();
    gate.leave(second);
}

BOOST_AUTO_TEST_CASE(readers_fence_no_one_and_everyone_can_be_expelled)
{
    SessionGate gate;
    FakeSession writer;
    FakeSession reader;
    require_ok(gate.enter({1, 1}, writer, soon()));
    require_ok(gate.enter_reader(reader));
    BOOST_TEST(writer.fences == 0);
    check_code(gate.expel_all(now_ms() + 30), ErrorCode::kTimeout);
    BOOST_TEST(writer.fences == 1);
    BOOST_TEST(reader.fences == 1);
    gate.leave(writer);
    std::thread leaving{[&] {
        ::usleep(20'000);
        gate.leave(reader);
    }};
    require_ok(gate.expel_all(soon()));
    leaving.join();
    gate.close();
    check_code(gate.enter({2, 1}, writer, soon()), ErrorCode::kNotFound);
    check_code(gate.enter_reader(writer), ErrorCode::kNotFound);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
