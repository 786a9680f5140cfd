#include "controller/pcomponentd/vmm_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/units.h"

namespace splitvisor::controller {

namespace {

constexpr std::size_t kMaxAnswerBytes = kMiB;

/// Waits until the socket is ready or the deadline, on the monotonic clock, has passed.
Status wait_ready(int fd, short events, std::uint64_t until_ms)
{
    for (;;) {
        const std::uint64_t now = now_ms();
        if (now >= until_ms) return Error{ErrorCode::kTimeout, "the VMM does not answer"};
        pollfd poll{fd, events, 0};
        const int ready = ::poll(&poll, 1, static_cast<int>(std::min<std::uint64_t>(until_ms - now, 60'000)));
        if (ready > 0) return {};
        if (ready < 0 && errno != EINTR) return Error::from_errno("poll");
    }
}

Status send_line(int fd, std::string_view line, std::uint64_t until_ms)
{
    while (!line.empty()) {
        SPLITVISOR_TRY(wait_ready(fd, POLLOUT, until_ms));
        const ssize_t sent = ::send(fd, line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (sent < 0) return Error::from_errno("control socket");
        line.remove_prefix(static_cast<std::size_t>(sent));
    }
    return {};
}

}  // namespace

Result<Fd> connect_unix(const std::string& path)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return Error{ErrorCode::kInvalid, path + " is too long for a socket's name"};
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!socket.valid()) return Error::from_errno("socket");
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        const int error = errno;
        if (error == ENOENT || error == ECONNREFUSED) return Error{ErrorCode::kUnavailable, "the VMM does not listen"};
        return Error::from_errno("connect " + path, error);
    }
    return socket;
}

Result<std::string> ask_vmm(const std::string& socket_path, const std::string& command_json, std::uint64_t deadline_ms)
{
    const std::uint64_t until_ms = now_ms() + deadline_ms;
    const auto socket = connect_unix(socket_path);
    if (!socket) return socket.error();
    SPLITVISOR_TRY(send_line(socket->get(), command_json + "\n", until_ms));
    std::string answer;
    while (answer.size() < kMaxAnswerBytes) {
        SPLITVISOR_TRY(wait_ready(socket->get(), POLLIN, until_ms));
        std::array<char, 4096> buffer{};
        const ssize_t size = ::recv(socket->get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (size < 0) return Error::from_errno("control socket");
        if (size == 0) return Error{ErrorCode::kUnavailable, "the VMM has closed its control socket"};
        answer.append(buffer.data(), static_cast<std::size_t>(size));
        if (const auto end = answer.find('\n'); end != std::string::npos) return answer.substr(0, end);
    }
    return Error{ErrorCode::kCorrupt, "the VMM's answer has no end"};
}

}  // namespace splitvisor::controller
