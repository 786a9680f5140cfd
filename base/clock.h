#pragma once

#include <time.h>

#include <cstdint>

namespace splitvisor {

/// Monotonic time since an arbitrary start.
inline std::uint64_t now_ns()
{
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(time.tv_nsec);
}

inline std::uint64_t now_ms() { return now_ns() / 1'000'000u; }

}  // namespace splitvisor
