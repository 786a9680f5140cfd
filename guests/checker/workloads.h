#pragma once

#include <cstdint>

#include "base/result.h"
#include "checker/arena.h"
#include "checker/options.h"
#include "checker/pattern.h"
#include "checker/report.h"

namespace splitvisor::checker {

/// What a workload works with. The generator gives each round and each thread other numbers.
struct Work {
    const Options& options;
    const Pattern& pattern;
    Report& report;
    Arena& arena;
    Random random;
};

/// Writes every page in order, then verifies every page in order.
[[nodiscard]] Status run_fill(Work& work);

/// Several threads verify and rewrite random pages, then every page is verified in order.
[[nodiscard]] Status run_random(Work& work);

/// Several threads raise the same counters, spread over many pages, without a lock: an update that is lost
/// while a page is taken away or brought back shows in the sum.
[[nodiscard]] Status run_atomic(Work& work);

/// A child verifies its copy-on-write view while the parent overwrites its own.
[[nodiscard]] Status run_fork(Work& work);

/// Maps and unmaps anonymous and tmpfs memory: fresh and discarded pages are zeros, all others keep their
/// content.
[[nodiscard]] Status run_map(Work& work);

}  // namespace splitvisor::checker
