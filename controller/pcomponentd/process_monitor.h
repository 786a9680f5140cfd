#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/units.h"
#include "controller/json/json.h"
#include "controller/pcomponentd/vmm_process.h"
#include "controller/wire/agent.h"

namespace splitvisor::controller {

struct ProcessMonitorOptions {
    std::string run_dir;      ///< absolute; one folder for each vNode
    std::string kernels_dir;  ///< absolute
    std::string vmm;          ///< path of vnode-vmm
    std::string keeper;       ///< path of vnode-keeper
    std::uint32_t vcpus = 1;  ///< what the controller may give away
    ByteCount memory;         ///< likewise, for ExCaches
    std::uint64_t start_ms = 90'000;  ///< for a VMM to run its guest
    std::uint64_t kill_ms = 3'000;    ///< for a VMM to end when it is told to, before SIGKILL
};

/// Starts, watches and stops the vnode-vmm processes of one pComponent. They live on when it goes, and the next one
/// adopts them. Thread-safe; commands wait. Threads: one of its own watches for endings.
class ProcessMonitor final : public wire::ProcessCommands {
  public:
    /// Adopts what an earlier monitor has left running; endings that nobody watched are reported later.
    static Result<std::unique_ptr<ProcessMonitor>> create(ProcessMonitorOptions options);
    ~ProcessMonitor() override;
    ProcessMonitor(const ProcessMonitor&) = delete;
    ProcessMonitor& operator=(const ProcessMonitor&) = delete;

    /// Whom endings are told; those from before are told now. Null before the agent goes.
    void report_to(wire::Agent* agent);
    [[nodiscard]] wire::Usage usage() const;

    Status start_vnode(const std::string& name, const std::string& spec_json) override;
    Status stop_vnode(const std::string& name, std::uint64_t grace_ms) override;
    Result<std::string> control_vnode(const std::string& name, const std::string& command_json) override;
    Status forget_vnode(const std::string& name) override;
    Result<Fd> open_console(const std::string& name) override;

  private:
    enum class State { kStarting, kRunning, kStopping };
    struct Vnode {
        Epoch epoch;
        ByteCount excache;
        State state = State::kStarting;
        std::shared_ptr<const VmmProcess> process;
    };
    struct Ending {
        std::string name;
        Epoch epoch;
        VmmEnding how;
    };

    explicit ProcessMonitor(ProcessMonitorOptions options, EventFd wake);
    void adopt_all();
    void adopt(const std::string& name);
    void watch();
    void note_ending(const std::string& name, const VmmProcess& process);
    void report(Ending ending);
    [[nodiscard]] RunDir dir_of(const std::string& name) const { return RunDir{options_.run_dir + "/" + name}; }
    [[nodiscard]] Status await_running(const std::string& name, const VmmProcess& process);
    [[nodiscard]] std::optional<Vnode> find(const std::string& name) const;
    void set_state(const std::string& name, State state);
    [[nodiscard]] bool await_gone(const std::string& name, std::uint64_t deadline_ms);
    [[nodiscard]] std::shared_ptr<const VmmProcess> begin_stop(const std::string& name);

    const ProcessMonitorOptions options_;
    const EventFd wake_;  ///< for the watching thread: the list of processes has changed, or the end
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, Vnode> vnodes_;
    std::deque<Ending> unreported_;
    wire::Agent* agent_ = nullptr;
    bool stopping_ = false;
    Thread watcher_;
};

}  // namespace splitvisor::controller
