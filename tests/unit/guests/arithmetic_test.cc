#include <boost/test/unit_test.hpp>
#include <vector>

#include "guests/ring3/arithmetic.h"

using namespace splitvisor::ring3;

BOOST_AUTO_TEST_SUITE(arithmetic)

BOOST_AUTO_TEST_CASE(zipf_ranks_stay_in_bounds_and_each_octave_weighs_the_same)
{
    constexpr std::uint64_t kCount = 1023;  // ten whole octaves
    constexpr std::uint64_t kDraws = 200'000;
    std::vector<std::uint64_t> octaves(10);
    for (std::uint64_t i = 0; i < kDraws; ++i) {
        const auto rank = zipf_rank(random_at(7, i), kCount);
        BOOST_REQUIRE(rank < kCount);
        ++octaves[63u - static_cast<unsigned>(__builtin_clzll(rank + 1))];
    }
    for (const auto hits : octaves) BOOST_TEST((hits > kDraws / 10 * 95 / 100 && hits < kDraws / 10 * 105 / 100));
}

BOOST_AUTO_TEST_CASE(zipf_ranks_stay_in_bounds_for_every_count)
{
    for (std::uint64_t count = 1; count < 300; ++count) {
        std::vector<bool> seen(count);
        for (std::uint64_t i = 0; i < 40 * count; ++i) {
            const auto rank = zipf_rank(random_at(count, i), count);
            BOOST_REQUIRE(rank < count);
            seen[rank] = true;
        }
        BOOST_TEST(seen.front());
        BOOST_TEST((count > 100 || seen.back()));
    }
}

BOOST_AUTO_TEST_CASE(scatter_is_one_to_one)
{
    for (const std::uint64_t count : {1u, 2u, 7u, 4096u, 57'344u, 98'301u}) {
        std::vector<bool> seen(count);
        for (std::uint64_t rank = 0; rank < count; ++rank) {
            const auto place = scatter(rank, count);
            BOOST_REQUIRE(place < count);
            BOOST_REQUIRE(!seen[place]);
            seen[place] = true;
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()
