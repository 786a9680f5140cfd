#include "fabric/stream_connection.h"

#include <limits.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/clock.h"

namespace splitvisor::fabric {

namespace {

/// One page with its header and head arrives in one recv.
constexpr std::size_t kReadAheadBytes = 8 * 1024;

msghdr header_for(std::span<iovec> vectors)
{
    msghdr header{};
    header.msg_iov = vectors.data();
    header.msg_iovlen = std::min<std::size_t>(vectors.size(), IOV_MAX);
    return header;
}

}  // namespace

StreamConnection::StreamConnection(Fd socket, std::string peer, int message_limit_ms)
    : FramedConnection{std::move(peer), message_limit_ms, kReadAheadBytes}, socket_{std::move(socket)}
{
}

void StreamConnection::shutdown()
{
    mark_ended();
    ::shutdown(socket_.get(), SHUT_RDWR);
}

Result<std::size_t> StreamConnection::write_some(std::span<iovec> vectors)
{
    const auto header = header_for(vectors);
    while (true) {
        const auto count = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0) return static_cast<std::size_t>(count);
        if (errno == EAGAIN) return std::size_t{0};
        if (errno != EINTR) return broken(ErrorCode::kUnavailable, Error::from_errno("send").message());
    }
}

Result<std::size_t> StreamConnection::read_some(std::span<iovec> into)
{
    auto header = header_for(into);
    while (true) {
        const auto count = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT);
        if (count > 0) return static_cast<std::size_t>(count);
        if (count == 0) return broken(ErrorCode::kUnavailable, "the peer closed the connection");
        if (errno == EAGAIN) return std::size_t{0};
        if (errno != EINTR) return broken(ErrorCode::kUnavailable, Error::from_errno("receive").message());
    }
}

bool StreamConnection::input_ready()
{
    pollfd waiting{socket_.get(), POLLIN, 0};
    return ::poll(&waiting, 1, 0) > 0;
}

Status StreamConnection::sleep_for_input(std::uint64_t deadline_ms)
{
    return wait_for(POLLIN, deadline_ms);
}

Status StreamConnection::sleep_for_output(std::uint64_t deadline_ms)
{
    return wait_for(POLLOUT, deadline_ms);
}

Status StreamConnection::wait_for(short events, std::uint64_t deadline_ms)
{
    while (true) {
        const auto now = now_ms();
        const auto left = deadline_ms <= now ? 0 : std::min<std::uint64_t>(deadline_ms - now, INT_MAX);
        pollfd waiting{socket_.get(), events, 0};
        const int ready = ::poll(&waiting, 1, deadline_ms == kNever ? -1 : static_cast<int>(left));
        if (ready > 0) return {};
        if (ready < 0 && errno != EINTR) return broken(ErrorCode::kUnavailable, "poll failed");
        if (ready == 0 && left == 0) return late();
    }
}

}  // namespace splitvisor::fabric
