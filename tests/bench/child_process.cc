#include "tests/bench/child_process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

namespace splitvisor::bench {

Result<ChildProcess> ChildProcess::start(const std::function<void()>& body)
{
    const auto parent = ::getpid();
    const auto pid = ::fork();
    if (pid < 0) return Error::from_errno("fork");
    if (pid > 0) return ChildProcess{pid};
    // The parent may have died before this call took effect.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(1);
    body();
    ::_exit(0);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept : pid_{std::exchange(other.pid_, -1)} {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept
{
    std::swap(pid_, other.pid_);
    return *this;
}

ChildProcess::~ChildProcess()
{
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

}  // namespace splitvisor::bench
