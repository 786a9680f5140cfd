#pragma once

#include <functional>

#include "vmm/device.h"

namespace splitvisor::vmm {

enum class PowerRequest { kOff, kReset };
/// Called by the vCPU's thread that wrote the register, any number of times, by several threads at once.
using OnPowerRequest = std::function<void(PowerRequest)>;

/// The one port that is ACPI's sleep control, sleep status and reset register (ACPI 6.4, sections 4.8.3.6 and 4.8.3.7).
class PowerPort final : public IoDevice {
  public:
    explicit PowerPort(OnPowerRequest on_request) : on_request_{std::move(on_request)} {}
    void read(std::uint64_t offset, std::span<std::byte> into) override;
    void write(std::uint64_t offset, std::span<const std::byte> from) override;

  private:
    OnPowerRequest on_request_;
};

/// As much of a keyboard controller as a kernel needs that resets through it: command 0xfe at port 0x64.
class I8042Reset final : public IoDevice {
  public:
    explicit I8042Reset(OnPowerRequest on_request) : on_request_{std::move(on_request)} {}
    void read(std::uint64_t offset, std::span<std::byte> into) override;
    void write(std::uint64_t offset, std::span<const std::byte> from) override;

  private:
    OnPowerRequest on_request_;
};

}  // namespace splitvisor::vmm
