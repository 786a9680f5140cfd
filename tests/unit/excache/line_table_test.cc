#include "excache/line_table.h"

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <random>
#include <thread>
#include <vector>

#include "excache/landed_lines.h"
#include "excache/line_budget.h"
#include "excache/victim_ring.h"

using namespace splitvisor;
using namespace splitvisor::excache;

BOOST_AUTO_TEST_SUITE(line_table)

BOOST_AUTO_TEST_CASE(a_new_line_reads_as_zero)
{
    LineTable table{4};
    for (std::uint32_t i = 0; i < 4; ++i) BOOST_TEST((table.state(Line{i}) == LineState::kZero));
}

BOOST_AUTO_TEST_CASE(only_one_thread_wins_a_claim)
{
    constexpr int kThreads = 4;
    constexpr std::uint32_t kLines = 20'000;
    LineTable table{kLines};
    std::atomic<std::uint32_t> won{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&] {
            for (std::uint32_t i = 0; i < kLines; ++i) {
                if (table.claim(Line{i}, LineState::kZero, LineState::kFetching)) ++won;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    BOOST_TEST(won == kLines);
}

BOOST_AUTO_TEST_CASE(a_claim_from_the_wrong_state_fails)
{
    LineTable table{1};
    BOOST_TEST(!table.claim(Line{0}, LineState::kResident, LineState::kWithdrawing));
    BOOST_TEST(table.claim(Line{0}, LineState::kZero, LineState::kFetching));
    BOOST_TEST(!table.claim(Line{0}, LineState::kZero, LineState::kFetching));
}

BOOST_AUTO_TEST_CASE(whoever_wants_a_claimed_line_is_told_of_at_release)
{
    LineTable table{1};
    BOOST_TEST(table.claim(Line{0}, LineState::kZero, LineState::kFetching));
    BOOST_TEST(table.want(Line{0}, LineState::kFetching));
    BOOST_TEST(table.want(Line{0}, LineState::kFetching));
    BOOST_TEST(table.release(Line{0}, LineState::kResident));
    BOOST_TEST(!table.want(Line{0}, LineState::kFetching));
    BOOST_TEST(table.claim(Line{0}, LineState::kResident, LineState::kWithdrawing));
    BOOST_TEST(!table.release(Line{0}, LineState::kVictim));
}

// A wish is never lost: either want() says that the claim has ended, or release() says that somebody waits.
BOOST_AUTO_TEST_CASE(a_wish_and_a_release_at_the_same_time_see_each_other)
{
    LineTable table{1};
    for (int round = 0; round < 5'000; ++round) {
        BOOST_REQUIRE(table.claim(Line{0}, LineState::kZero, LineState::kForgetting));
        std::atomic<bool> go{false};
        bool noted = false;
        std::thread wisher{[&] {
            while (!go) {
            }
            noted = table.want(Line{0}, LineState::kForgetting);
        }};
        go = true;
        const bool told = table.release(Line{0}, LineState::kZero);
        wisher.join();
        BOOST_REQUIRE_EQUAL(told, noted);
    }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(admission_list)

BOOST_AUTO_TEST_CASE(lines_come_out_in_order_and_once)
{
    AdmissionList list{8};
    list.push(Line{3}, false);
    list.push(Line{1}, false);
    list.push(Line{3}, true);
    std::vector<std::pair<std::uint32_t, bool>> seen;
    list.drain([&](Line line, bool was_victim) { seen.emplace_back(line.value(), was_victim); });
    BOOST_TEST_REQUIRE(seen.size() == 2u);
    BOOST_TEST(seen[0].first == 3u);
    BOOST_TEST(seen[0].second);
    BOOST_TEST(seen[1].first == 1u);
    BOOST_TEST(!seen[1].second);
    list.drain([&](Line, bool) { BOOST_ERROR("the list should be empty"); });
}

BOOST_AUTO_TEST_CASE(no_line_is_lost_between_pushing_threads_and_a_drain)
{
    constexpr std::uint32_t kLines = 30'000;
    constexpr std::uint32_t kThreads = 3;
    AdmissionList list{kLines * kThreads};
    std::vector<std::uint32_t> seen(kLines * kThreads, 0);
    std::atomic<std::uint32_t> ended{0};
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            for (std::uint32_t i = 0; i < kLines; ++i) list.push(Line{t * kLines + i}, false);
            ++ended;
        });
    }
    while (ended < kThreads) list.drain([&](Line line, bool) { ++seen[line.value()]; });
    for (auto& thread : threads) thread.join();
    list.drain([&](Line line, bool) { ++seen[line.value()]; });
    for (const auto count : seen) BOOST_REQUIRE_EQUAL(count, 1u);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(line_budget)

BOOST_AUTO_TEST_CASE(resident_lines_and_victim_slots_together_are_the_capacity)
{
    for (const std::uint32_t capacity : {1024u, 4096u, 32768u, 100'000u}) {
        const LineBudget budget{1'000'000, capacity};
        BOOST_TEST(budget.evicts());
        BOOST_TEST(budget.limit() + budget.victim_slots() + LineBudget::kBatch == capacity);
        BOOST_TEST(budget.victim_slots() >= 64u);
    }
    const LineBudget all{4096, 4096};
    BOOST_TEST(!all.evicts());
    BOOST_TEST(all.limit() == 4096u);
}

BOOST_AUTO_TEST_CASE(the_limit_holds_under_contention)
{
    LineBudget budget{1'000'000, 1024};
    std::atomic<std::uint32_t> held{0};
    std::atomic<bool> exceeded{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 50'000; ++i) {
                if (!budget.take(7)) continue;
                if (held.fetch_add(7) + 7 > budget.limit()) exceeded = true;
                held.fetch_sub(7);
                budget.give(7);
            }
        });
    }
    for (auto& thread : threads) thread.join();
    BOOST_TEST(!exceeded);
    BOOST_TEST(budget.used() == 0u);
    BOOST_TEST(budget.peak() <= budget.limit());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(victim_ring)

BOOST_AUTO_TEST_CASE(slots_are_emptied_in_the_order_they_were_filled)
{
    VictimRing ring{4};
    std::uint32_t next_line = 0;
    std::uint32_t oldest_line = 0;
    for (int round = 0; round < 50; ++round) {
        while (ring.free() > 0) {
            BOOST_TEST(ring.contiguous_free() >= 1u);
            const auto expected = ring.next();
            BOOST_TEST(ring.push(Line{next_line++}) == expected);
        }
        for (int i = 0; i <= round % 4; ++i) {
            const auto entry = ring.pop();
            BOOST_TEST(entry.line.value() == oldest_line);
            BOOST_TEST(entry.slot == oldest_line % 4);
            ++oldest_line;
        }
    }
}

BOOST_AUTO_TEST_CASE(a_line_lands_unless_somebody_waits_for_it)
{
    LineTable table{2};
    LandedLines landed;
    BOOST_REQUIRE(table.claim(Line{0}, LineState::kZero, LineState::kFetching));
    BOOST_REQUIRE(table.claim(Line{1}, LineState::kZero, LineState::kFetching));
    BOOST_REQUIRE(table.want(Line{1}, LineState::kFetching));
    const auto first = landed.take(table);
    const auto second = landed.take(table);
    BOOST_REQUIRE((first && second && first->slot != second->slot && !first->line && !second->line));
    BOOST_TEST(landed.land(table, Line{0}, first->slot));
    BOOST_TEST(!landed.land(table, Line{1}, second->slot));
    BOOST_TEST((table.state(Line{0}) == LineState::kLanded));
    BOOST_TEST((table.state(Line{1}) == LineState::kFetching));
    BOOST_TEST(table.release(Line{1}, LineState::kResident));
}

BOOST_AUTO_TEST_CASE(a_slot_that_is_needed_gives_up_the_line_that_lay_there)
{
    LineTable table{LandedLines::kSlots + 1};
    LandedLines landed;
    for (std::uint32_t i = 0; i < LandedLines::kSlots; ++i) {
        BOOST_REQUIRE(table.claim(Line{i}, LineState::kZero, LineState::kFetching));
        BOOST_REQUIRE(landed.land(table, Line{i}, landed.take(table)->slot));
    }
    const auto place = landed.take(table);
    BOOST_REQUIRE((place && place->line));
    BOOST_TEST((table.state(*place->line) == LineState::kFetching));
    BOOST_TEST(table.slot(*place->line) == place->slot);
}

// Threads land lines and take them back at random: no slot is ever in two hands, and a line's slot holds that line.
BOOST_AUTO_TEST_CASE(landing_slots_are_never_in_two_hands)
{
    constexpr std::uint32_t kLines = 64;
    constexpr int kThreads = 4;
    LineTable table{kLines};
    LandedLines landed;
    std::vector<std::atomic<std::uint32_t>> content(LandedLines::kSlots);
    std::vector<std::atomic<int>> hands(LandedLines::kSlots);
    std::atomic<std::uint64_t> errors{0};
    const auto enter = [&](std::uint32_t slot) {
        if (hands[slot].fetch_add(1) != 0) ++errors;
    };
    const auto leave = [&](std::uint32_t slot) { hands[slot].fetch_sub(1); };
    const auto work = [&](std::uint32_t seed) {
        std::mt19937 random{seed};
        for (int i = 0; i < 50'000; ++i) {
            const Line line{static_cast<std::uint32_t>(random() % kLines)};
            if (table.claim(line, LineState::kLanded, LineState::kFetching)) {
                const auto slot = table.slot(line);
                enter(slot);
                if (content[slot] != line.value()) ++errors;
                leave(slot);
                landed.free(slot);
                (void)table.release(line, LineState::kRemote);
                continue;
            }
            if (!table.claim(line, table.state(line) == LineState::kZero ? LineState::kZero : LineState::kRemote,
                             LineState::kFetching)) {
                (void)table.want(line, LineState::kFetching);
                continue;
            }
            const auto place = landed.take(table);
            if (!place) {
                (void)table.release(line, LineState::kRemote);
                continue;
            }
            enter(place->slot);
            if (place->line) {
                if (content[place->slot] != place->line->value()) ++errors;
                (void)table.release(*place->line, LineState::kRemote);
            }
            content[place->slot] = line.value();
            leave(place->slot);
            if (!landed.land(table, line, place->slot)) (void)table.release(line, LineState::kRemote);
        }
    };
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < kThreads; ++t) threads.emplace_back(work, t + 1);
    for (auto& thread : threads) thread.join();
    BOOST_TEST(errors == 0u);
}

BOOST_AUTO_TEST_SUITE_END()
