#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "guests/ring3/abi.h"

namespace splitvisor::ring3 {

/// Knows what a program must leave behind, and looks at every byte of it: one flipped bit anywhere in the arena is found.
/// What it expects comes from the generators and from another way to compute the result, not from the arena. Immutable
/// after create; any thread.
class Verifier {
  public:
    virtual ~Verifier() = default;

    /// Computes all that does not depend on a run; takes up to some seconds and as much memory as the arena.
    static Result<std::unique_ptr<Verifier>> create(const Parameters& parameters);

    /// kCorrupt says what is wrong and where. Reads all of the arena.
    [[nodiscard]] virtual Status check(std::span<const Outcome> outcomes, std::span<const std::byte> arena) const = 0;
};

}  // namespace splitvisor::ring3
