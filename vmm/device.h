#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/fd.h"
#include "base/units.h"

namespace splitvisor::vmm {

/// A device as the buses see it: a window of ports or of guest-physical addresses.
/// Called by vCPU threads, several at once: each device locks what it needs.
class IoDevice {
  public:
    virtual ~IoDevice() = default;
    /// The guest reads `into.size()` (1, 2, 4 or 8) bytes at `offset` of the window. Fills all of `into`.
    virtual void read(std::uint64_t offset, std::span<std::byte> into) = 0;
    virtual void write(std::uint64_t offset, std::span<const std::byte> from) = 0;
};

/// A guest interrupt line, edge-triggered through an irqfd. Thread-safe.
class InterruptLine {
  public:
    virtual ~InterruptLine() = default;
    virtual void raise() = 0;
};

/// Lets KVM turn a guest write of `value` (4 bytes) at `address` into a signal on an eventfd, without an exit to the VMM.
class DoorbellRegistry {
  public:
    virtual ~DoorbellRegistry() = default;
    [[nodiscard]] virtual Status add(Gpa address, std::uint32_t value, const EventFd& event) = 0;
    virtual void remove(Gpa address, std::uint32_t value, const EventFd& event) = 0;
};

}  // namespace splitvisor::vmm
