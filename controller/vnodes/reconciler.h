#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "controller/components/registry.h"
#include "controller/vnodes/vnode_service.h"

namespace splitvisor::controller {

/// Brings what is written down and what pComponents report together: VMMs that ended, VMMs that run though nobody
/// expected it, VMMs that are missing, and stops that an earlier controller began. A VMM of a vNode this controller
/// does not know is reported, never ended.
class Reconciler {
  public:
    static constexpr std::size_t kMaxExits = 4096;
    /// Heartbeats without a vNode that should run, before it counts as gone: its exit report comes first.
    static constexpr std::uint64_t kMissingHeartbeats = 3;
    /// Heartbeats with a vNode that is at rest, before it counts as running: the latest can be older than the report of
    /// its end, and one more can be under way.
    static constexpr std::uint64_t kRunningHeartbeats = 2;

    Reconciler(Catalog& catalog, ComponentHub& hub, ProcessManager& processes, VnodeService& service);
    ~Reconciler();
    Reconciler(const Reconciler&) = delete;
    Reconciler& operator=(const Reconciler&) = delete;

    /// Thread-safe, does not block. `heard` is called when the exit is durable; an exit that finds no place is told
    /// again by its pComponent.
    void add_exit(VnodeExit exit, std::function<void()> heard);
    /// Thread-safe, does not block: something has changed.
    void wake();

  private:
    struct Exit {
        VnodeExit exit;
        std::function<void()> heard;
    };
    struct Reported {
        Epoch epoch;
        std::string state;
    };
    using ReportedVnodes = std::map<std::string, Reported>;

    void run();
    void run_stops();
    void look();
    void handle_exits();
    [[nodiscard]] static ReportedVnodes reported_by(const ComponentStatus& component);
    void compare(const ComponentStatus& component, const Contents& contents);
    void compare_vnode(const ComponentStatus& component, const VnodeRecord& record, const ReportedVnodes& reported);
    void settle(const VnodeRecord& record, VnodeState state, const std::string& reason);
    void note_stray(const std::string& component, const std::string& vnode, Epoch epoch);
    /// Ends a VMM of an earlier epoch: its vNode was fenced off and may run elsewhere.
    void stop_stale(const std::string& component, const std::string& vnode);
    [[nodiscard]] bool is_missing_for_long(const ComponentStatus& component, const std::string& vnode);
    /// True once a vNode that is at rest for us has been in heartbeats that were sent after the report of its end.
    [[nodiscard]] bool is_running_for_long(const ComponentStatus& component, const VnodeRecord& record);
    void add_stop(const std::string& vnode, std::function<void()> stop);

    Catalog& catalog_;
    ComponentHub& hub_;
    ProcessManager& processes_;
    VnodeService& service_;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Exit> exits_;
    std::map<std::string, std::function<void()>> stops_;  ///< by vNode; run by the second thread
    bool awake_ = false;
    bool stopping_ = false;

    // Owned by the thread that looks.
    std::map<std::string, std::uint64_t> missing_since_;  ///< component/vNode: its count of heartbeats then
    std::map<std::string, std::pair<Epoch, std::uint64_t>> running_since_;  ///< likewise, for those at rest
    std::map<std::string, Epoch> strays_;                 ///< component/vNode: reported already

    Thread thread_;
    Thread stop_thread_;
};

}  // namespace splitvisor::controller
