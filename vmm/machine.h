#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "vmm/board.h"
#include "vmm/config.h"
#include "vmm/console_hub.h"
#include "vmm/control_protocol.h"
#include "vmm/guest_ram.h"

namespace splitvisor::vmm {

/// How `vnode-vmm` ends. README.md lists these for whoever starts it.
enum class ExitStatus : int {
    kPoweredOff = 0,  ///< also: stopped by a signal or by `kill`
    kStartFailed = 1,
    kUsage = 2,
    kGuestCrashed = 10,
    kMemoryLost = 11,
    kFenced = 12,
};

struct Ending {
    ExitStatus status = ExitStatus::kPoweredOff;
    std::string reason;  ///< one line
};

/// A vNode's machine over all its power cycles. run() belongs to one thread; everything else may be called by any other
/// while it runs, returns within a few seconds, and touches no guest memory.
class Machine {
  public:
    /// Makes the devices of one power cycle.
    using MakeDevices = std::function<Result<std::vector<VirtioSlot>>(const GuestMemory&)>;

    Machine(const Config& config, vcpu::System system, GuestRam& ram, ConsoleHub& console, MakeDevices devices);

    /// Powers on, and again after each reset, until the guest powers off or can't go on.
    [[nodiscard]] Ending run();

    [[nodiscard]] Status pause();
    [[nodiscard]] Status resume();
    /// Presses the power button: the guest powers off when, and if, it likes.
    [[nodiscard]] Status press_power_button();

    [[nodiscard]] MachineState state() const;
    [[nodiscard]] std::uint64_t restarts() const { return restarts_.load(); }
    /// Fills in what the machine knows.
    void add_stats(VnodeStats& stats) const;

  private:
    [[nodiscard]] Status power_on();
    [[nodiscard]] Result<vcpu::EntryState> load(std::uint32_t virtio_devices);
    void power_off();
    [[nodiscard]] Status pause_running();
    [[nodiscard]] BoardEvent wait_for_event();
    void on_event(BoardEvent event);
    [[nodiscard]] Error not_now() const;

    const Config& config_;
    vcpu::System system_;
    GuestRam& ram_;
    GuestMemory guest_memory_;
    ConsoleHub& console_;
    MakeDevices make_devices_;
    std::atomic<std::uint64_t> restarts_{0};

    /// Held while the machine goes from one state to another: for seconds at most, but across a reset.
    std::timed_mutex transition_;

    mutable std::mutex mutex_;  ///< guards what follows; the board is made and destroyed with both held
    std::condition_variable changed_;
    MachineState state_ = MachineState::kStarting;
    int pauses_waiting_ = 0;
    std::optional<BoardEvent> event_;
    std::unique_ptr<Board> board_;
};

/// The command line as the kernel gets it: what the machine needs and `wanted` does not say is put in front.
[[nodiscard]] std::string complete_command_line(std::string_view wanted);

}  // namespace splitvisor::vmm
