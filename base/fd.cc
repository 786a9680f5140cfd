#include "base/fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

namespace splitvisor {

void Fd::reset()
{
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

Result<EventFd> EventFd::create()
{
    Fd fd{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    if (!fd.valid()) return Error::from_errno("eventfd");
    return EventFd{std::move(fd)};
}

void EventFd::signal() const
{
    const std::uint64_t one = 1;
    // A full counter still wakes the waiter, so EAGAIN is success.
    [[maybe_unused]] const auto written = ::write(fd_.get(), &one, sizeof one);
}

bool EventFd::drain() const
{
    std::uint64_t count = 0;
    return ::read(fd_.get(), &count, sizeof count) == sizeof count;
}

Status write_all(int fd, std::span<const std::byte> bytes)
{
    while (!bytes.empty()) {
        const auto count = ::write(fd, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return Error::from_errno("write");
        bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    return {};
}

Status read_all(int fd, std::span<std::byte> bytes)
{
    while (!bytes.empty()) {
        const auto count = ::read(fd, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return Error::from_errno("read");
        if (count == 0) return Error{ErrorCode::kUnavailable, "the stream ended early"};
        bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    return {};
}

}  // namespace splitvisor
