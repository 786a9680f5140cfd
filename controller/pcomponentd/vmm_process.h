#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "controller/pcomponentd/run_dir.h"

namespace splitvisor::controller {

/// A running vnode-vmm. It lives on when this object goes. Thread-safe: it does not change.
class VmmProcess {
  public:
    /// Starts the keeper, which starts the VMM with RunDir::config(); both in a session of their own. The run dir has
    /// been prepared.
    static Result<VmmProcess> start(const RunDir& run_dir, const std::string& keeper, const std::string& vmm);

    /// The process that the run dir tells of, if it is still alive. kNotFound otherwise.
    static Result<VmmProcess> adopt(const RunDir& run_dir);

    [[nodiscard]] int pidfd() const { return pidfd_.get(); }  ///< readable once the process has ended
    [[nodiscard]] pid_t pid() const { return pid_; }
    [[nodiscard]] bool has_ended() const;
    void kill() const;

  private:
    VmmProcess(pid_t pid, Fd pidfd) : pid_{pid}, pidfd_{std::move(pidfd)} {}
    pid_t pid_;
    Fd pidfd_;
};

/// /proc/PID/stat, field 22; 0 where there is no such process.
[[nodiscard]] std::uint64_t start_time_of(pid_t pid);

}  // namespace splitvisor::controller
