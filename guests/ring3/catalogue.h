#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "guests/ring3/abi.h"

namespace splitvisor::ring3 {

/// A program with the choices that make it one workload.
struct Workload {
    std::string_view name;  ///< stable, dotted: "touch.random.write"
    Program program = Program::kTouch;
    Order order = Order::kSequential;
    Access access = Access::kRead;
    std::uint64_t operations = 0;          ///< of all vCPUs together
    std::uint64_t operations_per_page = 0; ///< instead, for those whose work grows with the arena
    std::string_view what;                 ///< for people: one line
};

[[nodiscard]] std::span<const Workload> workloads();
[[nodiscard]] Result<Workload> find_workload(std::string_view name);

/// The smallest guest that has room for every workload.
inline constexpr ByteCount kMinMemory{16 * kMiB};

/// The parameters for a guest with that much memory. Errors: kInvalid, memory that is not whole pages or out of bounds.
[[nodiscard]] Result<Parameters> make_parameters(const Workload& workload, ByteCount memory, std::uint32_t vcpus,
                                                 std::uint64_t seed);

}  // namespace splitvisor::ring3
