// Runs the eviction policy over made-up reference strings, without memory, threads or a kernel: what it sees is what a
// vNode shows it, faults only.
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <deque>
#include <list>
#include <random>
#include <unordered_map>
#include <vector>

#include "excache/eviction_policy.h"

using namespace splitvisor;
using excache::EvictionPolicy;

namespace {

using Trace = std::vector<std::uint32_t>;

/// Share of references that found their line resident or in a victim slot.
double hit_ratio(const Trace& trace, std::uint32_t lines, std::uint32_t capacity, std::uint32_t slots)
{
    EvictionPolicy policy{lines, capacity};
    enum class Where : std::uint8_t { kRemote, kResident, kVictim };
    std::vector<Where> where(lines, Where::kRemote);
    std::deque<std::uint32_t> victims;
    std::uint32_t resident = 0;
    std::uint64_t hits = 0;
    for (const auto line : trace) {
        if (where[line] == Where::kResident) {
            ++hits;
            continue;
        }
        const bool was_victim = where[line] == Where::kVictim;
        if (was_victim) ++hits;
        if (resident == capacity) {
            const auto picked = policy.pick();
            BOOST_REQUIRE(picked.has_value());
            BOOST_REQUIRE((where[picked->value()] == Where::kResident));
            where[picked->value()] = Where::kVictim;
            policy.evicted(*picked);
            victims.push_back(picked->value());
            --resident;
            if (victims.size() > slots) {
                if (where[victims.front()] == Where::kVictim) where[victims.front()] = Where::kRemote;
                victims.pop_front();
            }
        }
        where[line] = Where::kResident;
        policy.admit(Line{line}, was_victim);
        ++resident;
    }
    return static_cast<double>(hits) / static_cast<double>(trace.size());
}

/// What a pager without any reference bit can do at best by order of arrival, with the same memory.
double fifo_hit_ratio(const Trace& trace, std::uint32_t lines, std::uint32_t capacity)
{
    std::vector<bool> resident(lines, false);
    std::deque<std::uint32_t> queue;
    std::uint64_t hits = 0;
    for (const auto line : trace) {
        if (resident[line]) {
            ++hits;
            continue;
        }
        if (queue.size() == capacity) {
            resident[queue.front()] = false;
            queue.pop_front();
        }
        resident[line] = true;
        queue.push_back(line);
    }
    return static_cast<double>(hits) / static_cast<double>(trace.size());
}

constexpr std::uint32_t kLines = 8000;
constexpr std::uint32_t kCapacity = 1750;
constexpr std::uint32_t kSlots = 250;

Trace zipf_trace(std::size_t length, double skew, std::uint64_t seed)
{
    std::vector<double> cumulative(kLines);
    double sum = 0;
    for (std::uint32_t i = 0; i < kLines; ++i) cumulative[i] = sum += 1.0 / std::pow(i + 1, skew);
    std::mt19937_64 random{seed};
    std::uniform_real_distribution<double> uniform{0, sum};
    Trace trace(length);
    for (auto& line : trace) {
        const auto rank = std::lower_bound(cumulative.begin(), cumulative.end(), uniform(random)) - cumulative.begin();
        line = static_cast<std::uint32_t>(static_cast<std::uint64_t>(rank) * 2654435761u % kLines);
    }
    return trace;
}

/// A hot set with a long scan after every so many references.
Trace scan_trace(std::uint64_t seed)
{
    constexpr std::uint32_t kHot = 1000;
    std::mt19937_64 random{seed};
    Trace trace;
    std::uint32_t scan = kHot;
    for (int round = 0; round < 40; ++round) {
        for (int i = 0; i < 5000; ++i) trace.push_back(static_cast<std::uint32_t>(random() % kHot));
        for (int i = 0; i < 2500; ++i) {
            trace.push_back(scan);
            scan = scan + 1 == kLines ? kHot : scan + 1;
        }
    }
    return trace;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(policy_simulation)

BOOST_AUTO_TEST_CASE(every_admitted_line_is_picked_exactly_once)
{
    EvictionPolicy policy{100, 50};
    for (std::uint32_t i = 0; i < 100; ++i) policy.admit(Line{i}, i % 3 == 0);
    for (std::uint32_t i = 0; i < 100; ++i) policy.admit(Line{i}, false);
    std::vector<int> picked(100, 0);
    while (const auto line = policy.pick()) ++picked[line->value()];
    for (const int count : picked) BOOST_TEST(count == 1);
    BOOST_TEST(policy.known() == 0u);
}

BOOST_AUTO_TEST_CASE(a_skewed_load_hits_more_often_than_with_fifo)
{
    const auto trace = zipf_trace(200'000, 0.9, 7);
    const double ours = hit_ratio(trace, kLines, kCapacity, kSlots);
    const double fifo = fifo_hit_ratio(trace, kLines, kCapacity + kSlots);
    BOOST_TEST_MESSAGE("zipf 0.9: ours " << ours << ", FIFO " << fifo);
    BOOST_TEST(ours > fifo + 0.01);
}

BOOST_AUTO_TEST_CASE(a_scan_does_not_wash_out_the_hot_set)
{
    const auto trace = scan_trace(3);
    const double ours = hit_ratio(trace, kLines, kCapacity, kSlots);
    const double fifo = fifo_hit_ratio(trace, kLines, kCapacity + kSlots);
    BOOST_TEST_MESSAGE("scans: ours " << ours << ", FIFO " << fifo);
    BOOST_TEST(ours > fifo + 0.03);
}

BOOST_AUTO_TEST_CASE(a_uniform_load_loses_nothing_against_fifo)
{
    const auto trace = zipf_trace(200'000, 0.0, 11);
    const double ours = hit_ratio(trace, kLines, kCapacity, kSlots);
    const double fifo = fifo_hit_ratio(trace, kLines, kCapacity + kSlots);
    BOOST_TEST_MESSAGE("uniform: ours " << ours << ", FIFO " << fifo);
    BOOST_TEST(ours > fifo - 0.01);
}

BOOST_AUTO_TEST_SUITE_END()
