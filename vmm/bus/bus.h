#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "vcpu/vcpu.h"
#include "vmm/device.h"
#include "vmm/guest_memory.h"

namespace splitvisor::vmm {

using Port = Tagged<struct PortTag, std::uint16_t>;

struct BusCounters {
    std::uint64_t unclaimed_ports = 0;    ///< accesses to ports that no device has
    std::uint64_t unclaimed_memory = 0;   ///< accesses to addresses that are neither RAM nor a device's
};

/// The ports and memory-mapped registers of one machine. Devices claim windows before the vCPUs run; from then on the
/// vCPU threads look them up without a lock. What no device claims reads as all ones and swallows writes, as does an
/// access that crosses the edge of a window or has an odd width.
class Bus final : public vcpu::ExitHandler {
  public:
    /// `on_ram_exit` is called, by a vCPU's thread, when KVM hands an access to RAM to us: its page can't be brought in.
    Bus(const GuestMemory& memory, std::function<void(Gpa)> on_ram_exit)
        : memory_{memory}, on_ram_exit_{std::move(on_ram_exit)}
    {
    }

    /// The device outlives the bus. Windows of one kind don't overlap: one that would is a bug of ours.
    void claim_ports(Port first, std::uint16_t count, IoDevice& device);
    void claim_memory(Gpa start, ByteCount size, IoDevice& device);

    /// No vCPU enters the guest again after the access it is in. Any thread, device code included.
    void halt() { halted_.store(true); }

    [[nodiscard]] BusCounters counters() const;

    vcpu::Next port_read(std::uint16_t port, std::span<std::byte> into) override;
    vcpu::Next port_write(std::uint16_t port, std::span<const std::byte> from) override;
    vcpu::Next mmio_read(Gpa address, std::span<std::byte> into) override;
    vcpu::Next mmio_write(Gpa address, std::span<const std::byte> from) override;

  private:
    struct Window {
        std::uint64_t start;
        std::uint64_t bytes;
        IoDevice* device;
    };
    using Windows = std::vector<Window>;  // ordered by start

    static void claim(Windows& windows, const Window& window);
    static const Window* find(const Windows& windows, std::uint64_t address, std::size_t bytes);
    [[nodiscard]] vcpu::Next next() const;
    void note_unclaimed_port(std::uint16_t port);
    void note_unclaimed_memory(Gpa address);

    const GuestMemory& memory_;
    std::function<void(Gpa)> on_ram_exit_;
    Windows ports_;
    Windows windows_;
    std::atomic<bool> halted_{false};
    std::atomic<std::uint64_t> unclaimed_ports_{0};
    std::atomic<std::uint64_t> unclaimed_memory_{0};

    std::mutex log_mutex_;
    LogLimit log_limit_;
    std::vector<bool> logged_ports_ = std::vector<bool>(0x10000, false);
};

}  // namespace splitvisor::vmm
