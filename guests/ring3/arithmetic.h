#pragma once

#include <cstdint>

// Random numbers that depend on nothing but a seed and an index, so that the guest's memory can be checked by computing
// its content again. Freestanding.
namespace splitvisor::ring3 {

/// A bijection whose outputs look random (Stafford's variant 13 of the MurmurHash3 finaliser).
constexpr std::uint64_t mix(std::uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 27;
    x *= 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/// Element `index` of the stream that belongs to `seed`.
constexpr std::uint64_t random_at(std::uint64_t seed, std::uint64_t index)
{
    return mix(seed + (index + 1) * 0x9e3779b97f4a7c15);
}

__extension__ using Wide = unsigned __int128;

/// Maps a random number to [0, bound) (Lemire's multiplication). `bound` > 0.
constexpr std::uint64_t below(std::uint64_t random, std::uint64_t bound)
{
    return static_cast<std::uint64_t>((static_cast<Wide>(random) * bound) >> 64);
}

/// Zipf's law with exponent 1 in whole numbers, constant within each power of two: the ranks [2^k - 1, 2^(k+1) - 1) have
/// the same probability together for every k. Returns a rank below `count` > 0.
constexpr std::uint64_t zipf_rank(std::uint64_t random, std::uint64_t count)
{
    std::uint32_t octaves = 0;
    while ((count >> octaves) != 0) ++octaves;
    const auto first = (std::uint64_t{1} << below(random, octaves)) - 1;
    const auto next = 2 * first + 1;
    return first + below(mix(random), (next < count ? next : count) - first);
}

/// Scatters [0, count) over itself, one to one. `count` < 2^31.
constexpr std::uint64_t scatter(std::uint64_t rank, std::uint64_t count)
{
    constexpr std::uint64_t kPrime = 2654435761;  // above every count, so it shares no factor with any
    return rank * kPrime % count;
}

}  // namespace splitvisor::ring3
