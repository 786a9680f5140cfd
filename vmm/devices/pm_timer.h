#pragma once

#include "vmm/device.h"

namespace splitvisor::vmm {

/// The ACPI power management timer: 32 bits at 3.579545 MHz, read-only (ACPI 6.4, section 4.8.3.3). Stateless.
class PmTimer final : public IoDevice {
  public:
    void read(std::uint64_t offset, std::span<std::byte> into) override;
    void write(std::uint64_t offset, std::span<const std::byte> from) override;

    /// The counter at a given time.
    [[nodiscard]] static std::uint32_t ticks(std::uint64_t time_ns);
};

}  // namespace splitvisor::vmm
