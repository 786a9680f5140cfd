#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ept/fault_engine.h"
#include "fabric/connection.h"
#include "vcpu/vcpu.h"
#include "vmm/bus/bus.h"

namespace splitvisor::vmm {

/// What can be asked of a VMM: one JSON object a line, {"command":"status"}, answered by one.
enum class Command { kStatus, kPause, kResume, kShutdown, kKill, kStats };

/// A refused line is answered with the error and costs nothing else.
[[nodiscard]] Result<Command> parse_command(std::string_view line);

enum class MachineState { kStarting, kRunning, kPaused, kRestarting, kEnded };
[[nodiscard]] std::string_view to_string(MachineState state);

struct VnodeStatus {
    std::string name;
    std::uint64_t epoch = 0;
    MachineState state = MachineState::kStarting;
    std::string waiting_for;         ///< not empty while memory can't be served
    std::uint64_t uptime_ms = 0;     ///< since the VMM started
    std::uint64_t restarts = 0;      ///< resets by the guest
    std::uint64_t vcpus = 0;
    std::uint64_t memory_bytes = 0;
};

/// The counters of one virtio device, by name, as the device has them.
struct DeviceStats {
    std::string kind;  ///< "disk", "net", "balloon", "entropy"
    std::string name;
    std::vector<std::pair<std::string, std::uint64_t>> counters;
};

/// Monotonic counters; exits and device counters start anew at each reset of the machine.
struct VnodeStats {
    vcpu::ExitCounts exits{};
    BusCounters bus;
    ept::EngineStats engine;
    bool has_engine = false;  ///< false with local memory
    fabric::Traffic traffic;
    std::uint64_t console_lost_bytes = 0;
    std::vector<DeviceStats> devices;
};

// Answers, without the newline.
[[nodiscard]] std::string format_ok();
[[nodiscard]] std::string format_error(const Error& error);
[[nodiscard]] std::string format_status(const VnodeStatus& status);
[[nodiscard]] std::string format_stats(const VnodeStats& stats);

/// The content of exit.json: why and with which exit status the VMM ended.
[[nodiscard]] std::string format_ending(int exit_status, std::string_view reason);

}  // namespace splitvisor::vmm
