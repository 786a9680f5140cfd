#pragma once

#include <sys/types.h>

#include <functional>

#include "base/result.h"

namespace splitvisor::bench {

/// A forked copy of this process that runs one function, for servers that shall be other processes. It is killed with this
/// object, and with this process.
class ChildProcess {
  public:
    ChildProcess() = default;
    /// Forks: the caller has no other thread yet.
    static Result<ChildProcess> start(const std::function<void()>& body);
    ChildProcess(ChildProcess&& other) noexcept;
    ChildProcess& operator=(ChildProcess&& other) noexcept;
    ~ChildProcess();

  private:
    explicit ChildProcess(::pid_t pid) : pid_{pid} {}
    ::pid_t pid_ = -1;
};

}  // namespace splitvisor::bench
