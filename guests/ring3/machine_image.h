#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/units.h"
#include "guests/ring3/abi.h"

namespace splitvisor::ring3 {

/// The guest's code, as it is loaded at kImage.
[[nodiscard]] std::span<const std::byte> guest_image();

/// Writes page tables (2 MiB pages, virtual = physical, user mode), code and parameters into RAM that is all zero.
/// `ram` begins at guest-physical 0 and has kArena + parameters.arena_bytes.
void build_machine(std::span<std::byte> ram, const Parameters& parameters);

/// Where vCPU `id` begins; all else of its state is flat 64-bit ring 3.
struct EntryPoint {
    Gpa page_tables;
    std::uint64_t instruction;
    std::uint64_t stack;
    std::uint64_t rsi;  ///< tells the guest which vCPU it is
};
[[nodiscard]] EntryPoint entry_point(VcpuId id);

/// What the vCPUs left behind.
[[nodiscard]] std::vector<Outcome> read_outcomes(std::span<const std::byte> ram, const Parameters& parameters);
[[nodiscard]] std::span<std::byte> arena_of(std::span<std::byte> ram);

}  // namespace splitvisor::ring3
