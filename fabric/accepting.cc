#include "fabric/accepting.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

namespace splitvisor::fabric {

void pause_exhausted(const EventFd& stop)
{
    constexpr int kPauseMs = 100;
    pollfd waiting{stop.fd(), POLLIN, 0};
    ::poll(&waiting, 1, kPauseMs);
}

Result<std::optional<Fd>> accept_socket(const Fd& listening, const EventFd& stop)
{
    Fd socket{::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
    if (socket.valid()) return std::optional{std::move(socket)};
    const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    // All other errors belong to the one connection that was about to be made (accept(2)).
    if (!exhausted) return std::optional<Fd>{};
    const auto error = Error::from_errno("accept");
    pause_exhausted(stop);
    return Error{ErrorCode::kNoRoom, error.message()};
}

}  // namespace splitvisor::fabric
