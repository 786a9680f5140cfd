#pragma once

#include "guests/ring3/abi.h"
#include "guests/ring3/arithmetic.h"

// Sort: 64-bit keys, in place, by quicksort. The first page of the arena holds a SortHead, the others the keys. With two
// vCPUs the first divides the keys at 2^63 and each sorts one side.
namespace splitvisor::ring3 {

struct SortHead {
    std::uint64_t split;  ///< number of keys below 2^63
};

inline constexpr std::uint64_t kMiddleKey = std::uint64_t{1} << 63;

constexpr std::uint64_t key_count(const Parameters& parameters) { return (parameters.arena_bytes - kPage) / 8; }
constexpr std::uint64_t key_at(const Parameters& parameters, std::uint64_t index)
{
    return random_at(parameters.seed ^ 0x736f7274, index);
}

}  // namespace splitvisor::ring3
