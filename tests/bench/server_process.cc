#include "tests/bench/server_process.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/bytes.h"
#include "base/log.h"
#include "remote-mem/server.h"
#include "remote-mem/store.h"

namespace splitvisor::bench {
namespace {

constexpr int kAnswerDeadlineMs = 10'000;
constexpr int kEndDeadlineMs = 2'000;

}  // namespace

Result<ServerProcess> ServerProcess::start(ByteCount capacity, fabric::Endpoint::Scheme scheme)
{
    fabric::Endpoint wanted{.scheme = scheme, .host = "127.0.0.1", .port = 0};
    std::unique_ptr<fakes::TemporaryDirectory> directory;
    if (scheme == fabric::Endpoint::Scheme::kShm) {
        directory = std::make_unique<fakes::TemporaryDirectory>();
        wanted = {.scheme = scheme, .host = *directory / "server", .port = 0};
    }
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return Error::from_errno("socketpair");
    Fd ours{ends[0]};
    Fd theirs{ends[1]};
    const auto parent = ::getpid();
    const auto pid = ::fork();
    if (pid < 0) return Error::from_errno("fork of the server");
    if (pid == 0) {
        ours.reset();
        // The parent may have died before this call took effect.
        if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(1);
        serve(std::move(theirs), capacity, wanted);
    }
    ServerProcess server{std::move(ours), pid, std::move(directory)};
    theirs.reset();
    const auto ready = server.receive();
    if (!ready) return ready.error().in("the server did not start");
    server.endpoint_ = wanted;
    server.endpoint_.port = static_cast<std::uint16_t>(ready->port);
    return server;
}

ServerProcess::ServerProcess(ServerProcess&& other) noexcept
    : directory_{std::move(other.directory_)}, control_{std::move(other.control_)}, pid_{std::exchange(other.pid_, -1)}, endpoint_{std::move(other.endpoint_)}
{
}

ServerProcess::~ServerProcess()
{
    if (pid_ < 0) return;
    control_.reset();
    for (int waited_ms = 0; waited_ms < kEndDeadlineMs; waited_ms += 10) {
        if (::waitpid(pid_, nullptr, WNOHANG) != 0) return;
        ::usleep(10'000);
    }
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

void ServerProcess::serve(Fd control, ByteCount capacity, const fabric::Endpoint& wanted)
{
    remote_mem::RegionStore store{capacity};
    remote_mem::ServerOptions options;
    options.endpoint = wanted;
    const auto server = remote_mem::DataServer::start(options, store);
    auto answer = describe(server ? Status{} : Status{server.error()});
    if (server) answer.port = (*server)->endpoint().port;
    Command command{};
    while (::send(control.get(), &answer, sizeof answer, MSG_NOSIGNAL) == sizeof answer &&
           ::recv(control.get(), &command, sizeof command, 0) == sizeof command) {
        const RegionId region{command.region};
        answer = describe(command.action == Action::kCreate
                              ? store.create_region(region, ByteCount{command.size}, command.capability, Epoch{1})
                              : store.delete_region(region));
    }
    ::_exit(0);
}

ServerProcess::Answer ServerProcess::describe(const Status& status)
{
    Answer answer{};
    if (status) return answer;
    answer.status = 1 + static_cast<std::uint32_t>(status.error().code());
    status.error().message().copy(answer.message, sizeof answer.message - 1);
    return answer;
}

Result<ServerProcess::Answer> ServerProcess::receive() const
{
    pollfd waiting{.fd = control_.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waiting, 1, kAnswerDeadlineMs);
    if (ready < 0) return Error::from_errno("poll");
    if (ready == 0) return Error{ErrorCode::kTimeout, "the server process does not answer"};
    Answer answer{};
    if (::recv(control_.get(), &answer, sizeof answer, 0) != sizeof answer) {
        return Error{ErrorCode::kUnavailable, "the server process has ended"};
    }
    if (answer.status == 0) return answer;
    const auto code = std::min(answer.status - 1, static_cast<std::uint32_t>(ErrorCode::kIo));
    return Error{static_cast<ErrorCode>(code), std::string{answer.message, ::strnlen(answer.message, sizeof answer.message)}};
}

Status ServerProcess::call(const Command& command) const
{
    if (::send(control_.get(), &command, sizeof command, MSG_NOSIGNAL) != sizeof command) {
        return Error{ErrorCode::kUnavailable, "the server process has ended"};
    }
    const auto answer = receive();
    if (!answer) return answer.error();
    return {};
}

Status ServerProcess::create_region(RegionId id, ByteCount size, const Capability& capability)
{
    return call({.action = Action::kCreate, .reserved = 0, .region = id.value(), .size = size.value(), .capability = capability});
}

Status ServerProcess::delete_region(RegionId id)
{
    return call({.action = Action::kDelete, .reserved = 0, .region = id.value(), .size = 0, .capability = {}});
}

}  // namespace splitvisor::bench
