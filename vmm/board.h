#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vcpu/entry_state.h"
#include "vcpu/kvm.h"
#include "vcpu/vcpu_set.h"
#include "vmm/bus/bus.h"
#include "vmm/console_hub.h"
#include "vmm/control_protocol.h"
#include "vmm/devices/pm_timer.h"
#include "vmm/devices/power.h"
#include "vmm/devices/serial16550.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm_lines.h"
#include "vmm/virtio/mmio_transport.h"
#include "vmm/virtio_devices.h"

namespace splitvisor::vmm {

/// What only the owner of a board can answer.
struct BoardEvent {
    enum class Kind { kPowerOff, kReset, kCrash };
    Kind kind;
    std::string detail;  ///< kCrash: one line
};

/// A machine from power-on to power-off: the KVM objects, the buses, the devices. Nothing of it survives a reset: the next
/// power-on builds a new one on the same memory and back ends, so no state can be forgotten in between.
///
/// One owner starts, pauses, resumes and stops; exits(), counters and press_power_button() may be called by any thread
/// that knows the board to live.
class Board {
  public:
    struct Parts {
        const vcpu::System& system;
        const GuestMemory& memory;
        std::span<std::byte> ram;  ///< the host bytes of `memory`, by Line
        ConsoleHub& console;
        std::vector<VirtioSlot> virtio;  ///< in the order of their windows
        std::uint32_t vcpus = 1;
        vcpu::EntryState entry;
    };
    /// Called by vCPU threads, each time before that vCPU would enter the guest again; possibly by several at once.
    using OnEvent = std::function<void(BoardEvent)>;

    static Result<std::unique_ptr<Board>> build(Parts parts, OnEvent on_event);
    ~Board();
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;

    void start() { vcpus_->start(); }
    [[nodiscard]] Status pause(std::uint64_t deadline_ms) { return vcpus_->pause(deadline_ms); }
    void resume() { vcpus_->resume(); }
    /// Before the board is destroyed; kTimeout while a vCPU waits in the kernel.
    [[nodiscard]] Status stop(std::uint64_t deadline_ms) { return vcpus_->stop(deadline_ms); }
    void press_power_button() { button_line_->raise(); }

    [[nodiscard]] vcpu::ExitCounts exits() const { return vcpus_->exits(); }
    [[nodiscard]] BusCounters bus_counters() const { return bus_.counters(); }
    [[nodiscard]] std::vector<DeviceStats> device_stats() const;

  private:
    Board(vcpu::Vm vm, const GuestMemory& memory, ConsoleHub& console, OnEvent on_event);
    [[nodiscard]] Status connect_memory(const GuestMemory& memory, std::span<std::byte> ram);
    [[nodiscard]] Status add_platform_devices();
    [[nodiscard]] Status add_virtio_devices(std::vector<VirtioSlot> slots, const GuestMemory& memory);
    [[nodiscard]] Status add_vcpus(const Parts& parts);
    void announce(BoardEvent event);
    void on_power_request(PowerRequest request);
    void on_vcpu_end(const vcpu::RunEnd& end);

    struct VirtioDeviceOnBoard {
        std::string kind;
        std::string name;
        VirtioCounters counters;
        std::unique_ptr<KvmInterruptLine> line;
        std::unique_ptr<virtio::MmioTransport> transport;
    };

    // Each may use what stands above it.
    OnEvent on_event_;
    ConsoleHub& console_;
    vcpu::Vm vm_;
    KvmDoorbells doorbells_;
    Bus bus_;
    std::unique_ptr<KvmInterruptLine> serial_line_;
    std::unique_ptr<KvmInterruptLine> button_line_;
    std::unique_ptr<Serial16550> serial_;
    PmTimer pm_timer_;
    PowerPort power_port_;
    I8042Reset i8042_;
    std::vector<VirtioDeviceOnBoard> virtio_;
    std::unique_ptr<vcpu::VcpuSet> vcpus_;
};

}  // namespace splitvisor::vmm
