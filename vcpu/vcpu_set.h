#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "base/thread.h"
#include "base/units.h"
#include "vcpu/vcpu.h"

namespace splitvisor::vcpu {

/// All vCPUs of one machine (ids 0, 1, ...), each on a thread of its own. A vCPU that the handler stopped, or whose guest
/// ended, stays parked until the set is stopped: it never enters the guest again.
/// Any thread but the vCPUs' own may call; calls that change the
/// state (start, pause, resume, stop) are made by one thread at a time.
class VcpuSet {
  public:
    /// Called on a vCPU's thread when its guest can't go on; the other vCPUs still run then.
    using OnEnd = std::function<void(VcpuId, const RunEnd&)>;

    VcpuSet(std::vector<Vcpu> vcpus, ExitHandler& handler, OnEnd on_end);
    /// Waits for the threads without a deadline: an owner who can't wait calls stop() first and heeds its answer.
    ~VcpuSet();
    VcpuSet(const VcpuSet&) = delete;
    VcpuSet& operator=(const VcpuSet&) = delete;

    /// Starts the threads, running. Once only.
    void start();

    /// Returns when no vCPU runs guest code or device code. kTimeout names a vCPU that still waits in the kernel; it
    /// parks as soon as it gets out, unless resume() comes first.
    [[nodiscard]] Status pause(std::uint64_t deadline_ms);
    void resume();

    /// Ends and joins the threads; the vCPUs never run again. kTimeout as in pause(): the threads are not joined.
    [[nodiscard]] Status stop(std::uint64_t deadline_ms);

    /// Sums over all vCPUs.
    [[nodiscard]] ExitCounts exits() const;
    [[nodiscard]] std::size_t size() const { return vcpus_.size(); }

  private:
    enum class Goal { kRun, kPause, kStop };

    void run_vcpu(Vcpu& vcpu);
    [[nodiscard]] bool wait_for_permission(Vcpu& vcpu, bool ended);
    [[nodiscard]] Status reach(Goal goal, std::uint64_t deadline_ms);
    [[nodiscard]] Error still_running() const;

    std::vector<Vcpu> vcpus_;
    ExitHandler& handler_;
    OnEnd on_end_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Goal goal_ = Goal::kRun;
    std::vector<bool> parked_;  ///< by vCPU: outside guest and device code
    std::size_t parked_count_ = 0;
    std::vector<Thread> threads_;
};

}  // namespace splitvisor::vcpu
