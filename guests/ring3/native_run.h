#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "guests/ring3/abi.h"

namespace splitvisor::ring3 {

/// Runs a program in this process, a thread for each vCPU. `arena` has parameters.arena_bytes, all zero.
/// Returns one Outcome a vCPU.
[[nodiscard]] std::vector<Outcome> run_natively(const Parameters& parameters, std::span<std::byte> arena);

}  // namespace splitvisor::ring3
