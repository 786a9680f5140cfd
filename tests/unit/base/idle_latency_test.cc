#include "base/idle_latency.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <fstream>
#include <thread>

#include "tests/fakes/temporary_directory.h"

using namespace splitvisor;

namespace {

/// Counts `rate` events a second until the limit is held, or not, as wanted; false where that takes too long.
bool becomes(bool held, const IdleLatency& latency, std::atomic<std::uint64_t>& events, std::uint64_t rate)
{
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{10};
    while (std::chrono::steady_clock::now() < end) {
        if (latency.holds() == held) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
        events += rate / 1'000;
    }
    return false;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(idle_latency)

BOOST_AUTO_TEST_CASE(holds_a_limit_of_zero_while_events_come_fast)
{
    const fakes::TemporaryDirectory directory;
    const auto file = directory / "limit";
    std::ofstream{file}.close();
    std::atomic<std::uint64_t> events{0};
    const IdleLatency latency{[&] { return events.load(); }, file};
    BOOST_TEST(!latency.holds());
    BOOST_TEST(becomes(true, latency, events, 20'000));
    std::ifstream written{file, std::ios::binary};
    std::int32_t limit = -1;
    written.read(reinterpret_cast<char*>(&limit), sizeof limit);
    BOOST_TEST(limit == 0);
    BOOST_TEST(becomes(false, latency, events, 0));
}

BOOST_AUTO_TEST_CASE(does_without_where_the_file_cannot_be_opened)
{
    std::atomic<std::uint64_t> events{0};
    const IdleLatency latency{[&] { return events.load(); }, "/nonexistent/limit"};
    for (int i = 0; i < 200; ++i) {
        events += 1'000;
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    BOOST_TEST(!latency.holds());
}

BOOST_AUTO_TEST_SUITE_END()
