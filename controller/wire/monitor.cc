#include "controller/wire/monitor.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "base/log.h"

namespace splitvisor::wire {

namespace {

/// One attempt to reach the controller; between two of them signals are looked at.
constexpr std::uint64_t kAttemptMs = 5000;

}  // namespace

Result<Fd> take_ending_signals()
{
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    if (const int error = ::pthread_sigmask(SIG_BLOCK, &signals, nullptr); error != 0) {
        return Error::from_errno("pthread_sigmask", error);
    }
    Fd fd{::signalfd(-1, &signals, SFD_CLOEXEC)};
    if (!fd.valid()) return Error::from_errno("signalfd");
    return fd;
}

bool has_signal(const Fd& signals, int timeout_ms)
{
    pollfd waiting{.fd = signals.get(), .events = POLLIN, .revents = 0};
    return ::poll(&waiting, 1, timeout_ms) > 0;
}

void raise_descriptor_limit()
{
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) log_warning("descriptor limit not raised");
}

Status stay_enrolled(const AgentOptions& options, const Fd& signals, const std::function<void(Agent*)>& enrolled)
{
    LogLimit attempts;
    while (!has_signal(signals, 0)) {
        const auto agent = start_agent(options, kAttemptMs);
        if (agent) {
            log_info("enrolled",
                     field("controller", options.controller) + field("endpoint", options.data_endpoint));
            enrolled(agent->get());
            while (!has_signal(signals, -1)) continue;
            enrolled(nullptr);
            log_info("stopping");
            return {};
        }
        const auto code = agent.error().code();
        if (code != ErrorCode::kUnavailable && code != ErrorCode::kTimeout)
            return agent.error().in("enrolment");
        if (attempts.allow()) log_warning("controller not reached", field("error", agent.error()));
    }
    return {};
}

}  // namespace splitvisor::wire
