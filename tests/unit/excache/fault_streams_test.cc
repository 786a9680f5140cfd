#include "excache/fault_streams.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <random>
#include <vector>

using namespace splitvisor;
using excache::FaultStreams;
using excache::LineWindow;

namespace {

constexpr std::uint32_t kLines = 1u << 20;

std::uint32_t below(std::mt19937& random, std::uint32_t limit) { return static_cast<std::uint32_t>(random() % limit); }

/// Touches lines of a memory that keeps all that is brought; counts faults and lines.
struct Memory {
    explicit Memory(std::uint32_t lines = kLines) : local(lines, false) {}

    void touch(std::uint32_t line)
    {
        if (local[line]) return;
        ++faults;
        const auto window = streams.on_fault(Line{line}, static_cast<std::uint32_t>(local.size())).now;
        BOOST_REQUIRE(window.count >= 1);
        BOOST_REQUIRE(window.count <= FaultStreams::kLargestWindow);
        BOOST_REQUIRE(window.first <= line);
        BOOST_REQUIRE(line - window.first < window.count);
        BOOST_REQUIRE(window.first + window.count <= local.size());
        for (auto i = window.first; i < window.first + window.count; ++i) {
            if (!local[i]) ++brought;
            local[i] = true;
        }
    }

    FaultStreams streams;
    std::vector<bool> local;
    std::uint64_t faults = 0;
    std::uint64_t brought = 0;
    std::uint64_t wanted = 0;  ///< filled by who touches
};

}  // namespace

BOOST_AUTO_TEST_SUITE(fault_streams)

BOOST_AUTO_TEST_CASE(brings_sequences_in_either_direction_with_few_faults)
{
    constexpr std::uint32_t kLength = 64'000;
    for (const bool up : {true, false}) {
        Memory memory{kLength};
        for (std::uint32_t i = 0; i < kLength; ++i) memory.touch(up ? i : kLength - 1 - i);
        BOOST_TEST(memory.faults < kLength / 64 + 20);
        BOOST_TEST(memory.brought == kLength);
    }
}

BOOST_AUTO_TEST_CASE(keeps_several_sequences_apart)
{
    constexpr std::uint32_t kSequences = 8;
    constexpr std::uint32_t kLength = 10'000;
    Memory memory;
    for (std::uint32_t i = 0; i < kLength; ++i) {
        for (std::uint32_t s = 0; s < kSequences; ++s) {
            const auto base = s * 2 * kLength;
            memory.touch(s % 2 == 0 ? base + i : base + kLength - 1 - i);
        }
    }
    BOOST_TEST(memory.faults < kSequences * (kLength / 64 + 20));
    // Each overshoots its end by less than a window.
    BOOST_TEST(memory.brought < kSequences * (kLength + 64));
}

BOOST_AUTO_TEST_CASE(brings_nothing_unwanted_for_random_faults)
{
    // A small memory, where random faults meet by chance often, of which a quarter stays.
    constexpr std::uint32_t kFew = 32'768;
    std::mt19937 random{1};
    Memory memory{kFew};
    for (int i = 0; i < 200'000; ++i) {
        memory.touch(below(random, kFew));
        for (int k = 0; k < 2; ++k) memory.local[below(random, kFew)] = false;
    }
    BOOST_TEST(memory.faults > 100'000u);
    BOOST_TEST(memory.brought < memory.faults + memory.faults / 20);
}

BOOST_AUTO_TEST_CASE(finds_a_sequence_amid_random_faults)
{
    constexpr std::uint32_t kLength = 30'000;
    std::mt19937 random{2};
    Memory memory;
    std::uint64_t others = 0;
    for (std::uint32_t i = 0; i < kLength; ++i) {
        memory.touch(i);
        memory.touch(kLength * 2 + below(random, kLines - kLength * 2));
        ++others;
    }
    BOOST_TEST(memory.faults < others + kLength / 16);
}

BOOST_AUTO_TEST_CASE(goes_on_where_part_of_the_window_was_not_brought)
{
    FaultStreams streams;
    BOOST_TEST(streams.on_fault(Line{200}, kLines).now.count == 1u);
    (void)streams.on_fault(Line{201}, kLines);
    const auto grown = streams.on_fault(Line{205}, kLines).now;
    BOOST_TEST(grown.count > 1u);
    const auto inside = streams.on_fault(Line{grown.first + 2}, kLines).now;
    BOOST_TEST(inside.first == grown.first + 2);
    BOOST_TEST(inside.first + inside.count == grown.first + grown.count);
}

BOOST_AUTO_TEST_CASE(stays_within_the_memory)
{
    std::mt19937 random{3};
    for (const std::uint32_t lines : {1u, 2u, 63u, 64u, 65u, 1000u}) {
        FaultStreams streams;
        for (int i = 0; i < 10'000; ++i) {
            const auto line = below(random, lines);
            const auto plan = streams.on_fault(Line{line}, lines);
            const auto window = plan.now;
            BOOST_REQUIRE(window.first <= line);
            BOOST_REQUIRE(line - window.first < window.count);
            BOOST_REQUIRE(window.first + window.count <= lines);
            BOOST_REQUIRE(window.count <= FaultStreams::kLargestWindow);
            BOOST_REQUIRE(plan.ahead.count <= FaultStreams::kLargestWindow);
            BOOST_REQUIRE(plan.ahead.first + plan.ahead.count <= lines);
        }
    }
}

BOOST_AUTO_TEST_CASE(plans_ahead_what_a_sequence_will_want_next)
{
    constexpr std::uint32_t kLength = 10'000;
    for (const bool up : {true, false}) {
        FaultStreams streams;
        std::uint32_t at = 0;
        std::uint32_t planned = 0;
        for (int faults = 0; faults < 300 && at < kLength; ++faults) {
            const auto plan = streams.on_fault(Line{up ? at : kLength - 1 - at}, kLength);
            // What was planned ahead before begins where this fault is; the next one begins where this window ends.
            at += plan.now.count;
            if (plan.ahead.count == 0) continue;
            ++planned;
            BOOST_TEST(plan.is_downwards == !up);
            const auto entrance = up ? plan.ahead.first : kLength - plan.ahead.first - plan.ahead.count;
            BOOST_TEST(entrance == at);
        }
        BOOST_TEST(at >= kLength);
        BOOST_TEST(planned > kLength / FaultStreams::kLargestWindow - 10);
    }
}

BOOST_AUTO_TEST_CASE(learns_how_long_sequences_are)
{
    std::mt19937 random{5};
    Memory memory;
    const auto work = [&](std::uint32_t length, bool up, int blocks) {
        for (int i = 0; i < blocks; ++i) {
            const auto base = below(random, kLines / 64) * 64 + 64 * (below(random, 2) == 0 ? 1 : 0);
            if (base + 64 > kLines || memory.local[base] || memory.local[base + length - 1]) continue;
            for (std::uint32_t k = 0; k < length; ++k) memory.touch(base + (up ? k : length - 1 - k));
            memory.wanted += length;
        }
    };
    const auto fresh = [&] {
        std::fill(memory.local.begin(), memory.local.end(), false);
        memory.faults = memory.brought = memory.wanted = 0;
    };
    work(16, true, 400);
    fresh();
    // A fault a block, but for the probes.
    work(16, true, 2000);
    BOOST_TEST(memory.faults < memory.wanted / 16 * 2);
    BOOST_TEST(memory.brought < memory.wanted + memory.wanted / 5);
    // Single lines: soon nothing else is brought.
    fresh();
    work(1, true, 2000);
    BOOST_TEST(memory.brought < memory.wanted + 16 * 300);
    fresh();
    work(1, true, 2000);
    BOOST_TEST(memory.brought < memory.wanted + memory.wanted / 20);
    // Downwards costs more, and is found.
    fresh();
    work(32, false, 2000);
    BOOST_TEST(memory.faults < memory.wanted / 4);
}

BOOST_AUTO_TEST_CASE(plans_ahead_where_the_next_of_many_strides_begins)
{
    constexpr std::uint32_t kBlock = 16;
    for (const std::uint32_t stride : {1'000u, 0u - 1'000u}) {
        FaultStreams streams;
        std::uint32_t right = 0;
        std::uint32_t planned_lines = 0;
        LineWindow planned{0, 0};
        for (std::uint32_t i = 0, at = kLines / 2; i < 400; ++i, at += stride) {
            if (planned.count > 0 && planned.first == at) {
                ++right;
                planned_lines += planned.count;
            }
            for (std::uint32_t k = 0; k < kBlock; ++k) {
                const auto plan = streams.on_fault(Line{at + k}, kLines);
                if (k == 0) planned = plan.ahead;
                k = plan.now.first + plan.now.count - at - 1;
            }
        }
        // All but the first few, and those that are probes.
        BOOST_TEST(right > 400u - 400u / FaultStreams::kProbeEvery - 20u);
        BOOST_TEST(planned_lines > right * 8);
    }
}

BOOST_AUTO_TEST_CASE(plans_nothing_ahead_for_random_faults)
{
    std::mt19937 random{4};
    FaultStreams streams;
    std::uint64_t planned = 0;
    for (int i = 0; i < 100'000; ++i) planned += streams.on_fault(Line{below(random, 32'768)}, 32'768).ahead.count;
    BOOST_TEST(planned < 1000u);
}

BOOST_AUTO_TEST_SUITE_END()
