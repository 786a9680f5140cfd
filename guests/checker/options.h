#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace splitvisor::checker {

enum class Mode { kFill, kRandom, kAtomic, kFork, kMap };

[[nodiscard]] const char* to_string(Mode mode);

struct Options {
    std::uint64_t mib = 64;
    std::uint32_t threads = 2;
    std::uint64_t rounds = 1;
    /// Rounds go on until this time is over; 0 where only `rounds` counts.
    std::uint64_t seconds = 0;
    std::uint64_t seed = 1;
    std::vector<Mode> modes;
    /// Empty: the ledger is kept in memory.
    std::string ledger;
    bool huge = false;
    bool help = false;
    /// Set from the ledger's batch.
    std::uint64_t touches_per_visit = 1;
};

inline constexpr const char* kUsage =
    "usage: vnode-checker [--mib N] [--threads T] [--rounds R | --seconds S] [--seed S]\n"
    "                     [--mode fill,random,atomic,fork,map | all] [--ledger DEVICE_OR_FILE] [--huge]\n"
    "Modes may be joined with '+' as well as with ','.\n";

Result<Options> parse_options(std::span<char* const> arguments);

}  // namespace splitvisor::checker
