#include "controller/pcomponentd/vmm_process.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "base/text.h"

// glibc 2.36 forgets to say that these are C functions.
extern "C" {
#include <sys/pidfd.h>
}

namespace splitvisor::controller {

namespace {

constexpr std::uint64_t kKeeperMs = 10'000;
constexpr std::chrono::milliseconds kPollInterval{2};

/// What a spawned keeper starts with: a session of its own, and no signal blocked or ignored by inheritance.
class SpawnAttributes {
  public:
    SpawnAttributes()
    {
        ::posix_spawnattr_init(&attributes_);
        sigset_t none;
        sigset_t all;
        ::sigemptyset(&none);
        ::sigfillset(&all);
        ::posix_spawnattr_setsigmask(&attributes_, &none);
        ::posix_spawnattr_setsigdefault(&attributes_, &all);
        ::posix_spawnattr_setflags(&attributes_,
                                   POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    }
    ~SpawnAttributes() { ::posix_spawnattr_destroy(&attributes_); }
    SpawnAttributes(const SpawnAttributes&) = delete;
    SpawnAttributes& operator=(const SpawnAttributes&) = delete;
    [[nodiscard]] const posix_spawnattr_t* get() const { return &attributes_; }

  private:
    posix_spawnattr_t attributes_{};
};

/// True once the keeper has ended; it is then reaped.
bool has_keeper_ended(pid_t keeper)
{
    int status = 0;
    return ::waitpid(keeper, &status, WNOHANG) != 0;
}

Error ended_at_once(const RunDir& run_dir)
{
    const VmmEnding ending = run_dir.ending().value_or(VmmEnding{-1, run_dir.last_log_line()});
    if (!ending.reason.empty()) return {ErrorCode::kIo, ending.reason};
    return {ErrorCode::kIo, "vnode-vmm ended with status " + std::to_string(ending.exit_status)};
}

}  // namespace

std::uint64_t start_time_of(pid_t pid)
{
    const auto text = read_file("/proc/" + std::to_string(pid) + "/stat", ByteCount{4 * kKiB});
    if (!text) return 0;
    // The second field is the program's name in parentheses and can hold anything.
    const auto name_end = text->rfind(')');
    if (name_end == std::string::npos) return 0;
    std::istringstream rest{text->substr(name_end + 1)};
    std::string field;
    for (int number = 3; number <= 22; ++number) rest >> field;
    const auto start_time = parse_number(field);
    return start_time ? *start_time : 0;
}

Result<VmmProcess> VmmProcess::start(const RunDir& run_dir, const std::string& keeper, const std::string& vmm)
{
    const std::string config = run_dir.config();
    const std::array<const char*, 6> arguments = {
        keeper.c_str(), run_dir.path().c_str(), vmm.c_str(), "--config", config.c_str(), nullptr};
    const SpawnAttributes attributes;
    pid_t keeper_pid = 0;
    const int error = ::posix_spawn(&keeper_pid, keeper.c_str(), nullptr, attributes.get(),
                                    const_cast<char* const*>(arguments.data()), environ);
    if (error != 0) return Error::from_errno("start " + keeper, error);
    const std::uint64_t until_ms = now_ms() + kKeeperMs;
    while (now_ms() < until_ms) {
        const bool is_over = has_keeper_ended(keeper_pid);
        if (run_dir.process()) {
            auto process = adopt(run_dir);
            if (process) return process;
            if (is_over) return ended_at_once(run_dir);
        } else if (is_over) {
            return Error{ErrorCode::kIo, "vnode-keeper has failed"};
        }
        std::this_thread::sleep_for(kPollInterval);
    }
    return Error{ErrorCode::kTimeout, "vnode-keeper does not start the VMM"};
}

Result<VmmProcess> VmmProcess::adopt(const RunDir& run_dir)
{
    const auto identity = run_dir.process();
    if (!identity) return Error{ErrorCode::kNotFound, "no process is noted in " + run_dir.path()};
    Fd pidfd{::pidfd_open(identity->pid, 0)};
    const bool is_same = pidfd.valid() && start_time_of(identity->pid) == identity->start_time;
    if (!is_same) return Error{ErrorCode::kNotFound, "the process noted in " + run_dir.path() + " has ended"};
    VmmProcess process{identity->pid, std::move(pidfd)};
    if (process.has_ended()) return Error{ErrorCode::kNotFound, "the process noted in " + run_dir.path() + " has ended"};
    return process;
}

bool VmmProcess::has_ended() const
{
    pollfd poll{pidfd_.get(), POLLIN, 0};
    return ::poll(&poll, 1, 0) > 0;
}

void VmmProcess::kill() const
{
    ::pidfd_send_signal(pidfd_.get(), SIGKILL, nullptr, 0);
}

}  // namespace splitvisor::controller
