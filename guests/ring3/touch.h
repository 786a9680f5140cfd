#pragma once

#include "guests/ring3/abi.h"
#include "guests/ring3/arithmetic.h"

// Page touch: each page holds a counter in its first word and a pattern in all others. A reading touch adds one word of
// the pattern to the checksum; a writing touch raises the counter.
namespace splitvisor::ring3 {

struct PageRange {
    std::uint64_t first;
    std::uint64_t count;
};

constexpr std::uint64_t kSharedPart = 8;   ///< with several vCPUs the last 1/8 of the pages belongs to all of them
constexpr std::uint64_t kSharedTouch = 8;  ///< and each of them touches it every 8th time

constexpr PageRange shared_pages(const Parameters& parameters)
{
    const auto pages = parameters.arena_bytes / kPage;
    const auto shared = parameters.vcpus == 1 ? 0 : pages / kSharedPart;
    return {pages - shared, shared};
}

constexpr PageRange own_pages(const Parameters& parameters, std::uint32_t vcpu)
{
    const auto end = shared_pages(parameters).first;
    const auto first = end * vcpu / parameters.vcpus;
    return {first, end * (vcpu + 1) / parameters.vcpus - first};
}

constexpr std::uint64_t pattern_word(std::uint64_t seed, std::uint64_t page, std::uint64_t word)
{
    return random_at(seed, page * kWordsPerPage + word);
}

struct Touch {
    std::uint64_t page;
    std::uint64_t word;  ///< of the pattern
};

/// Which page and word one vCPU's touch number `index` goes to.
constexpr Touch touch_at(const Parameters& parameters, std::uint32_t vcpu, std::uint64_t index)
{
    const auto shared = shared_pages(parameters);
    const bool to_shared = shared.count != 0 && index % kSharedTouch == kSharedTouch - 1;
    const auto range = to_shared ? shared : own_pages(parameters, vcpu);
    const auto random = random_at(parameters.seed ^ (0x746f756368 + vcpu), index);
    std::uint64_t page = 0;
    switch (parameters.order) {
    case Order::kSequential: page = (to_shared ? index / kSharedTouch : index) % range.count; break;
    case Order::kRandom: page = below(random, range.count); break;
    case Order::kZipf: page = scatter(zipf_rank(random, range.count), range.count); break;
    }
    return {range.first + page, 1 + below(mix(random ^ page), kWordsPerPage - 1)};
}

}  // namespace splitvisor::ring3
