#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/thread.h"
#include "vmm/config.h"
#include "vmm/console_hub.h"
#include "vmm/control_server.h"
#include "vmm/ending_signal.h"
#include "vmm/guest_ram.h"
#include "vmm/machine.h"

namespace splitvisor::vmm {

/// One vNode in one process: joins memory, disks, machine, console and control socket, and decides when it is over.
///
/// Threads: run() on the main thread waits for an ending or a signal and never touches guest memory, so it ends the process
/// whatever the others wait for. A thread of its own connects, loads and runs the machine.
class Vnode {
  public:
    /// Takes the run folder (no other VMM may use it) and opens console and control socket.
    /// SIGTERM and SIGINT must be blocked in every thread.
    static Result<std::unique_ptr<Vnode>> open(Config config, MemoryKind memory_kind);

    /// Does not return: ends the process with the status of the ending, after the report is out. Threads that wait in the
    /// kernel for a page can't be joined, so nothing is torn down.
    [[noreturn]] void run();

  private:
    Vnode(Config config, MemoryKind memory_kind, Fd lock, EventFd ending);
    void run_machine();
    [[nodiscard]] Status prepare();
    [[noreturn]] void end(const Ending& ending);

    [[nodiscard]] ControlServer::Answer answer(std::string_view line);
    [[nodiscard]] Status command_machine(Command command);
    [[nodiscard]] std::string status_text();
    [[nodiscard]] std::string stats_text();

    const Config config_;
    const MemoryKind memory_kind_;
    const std::uint64_t started_ms_;
    Fd lock_;
    EndingSignal ending_;
    std::unique_ptr<ConsoleHub> console_;
    std::unique_ptr<ControlServer> control_;
    std::vector<std::unique_ptr<vstore::BlockBackend>> disks_;  ///< the machine's thread's

    std::mutex mutex_;  ///< guards the pointers: the machine's thread sets each once, control threads read them
    std::unique_ptr<GuestRam> ram_;
    std::unique_ptr<Machine> machine_;
    Thread thread_;
};

}  // namespace splitvisor::vmm
