#include "ept/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace splitvisor::ept {

namespace {

// Newer than Debian 12's headers (linux/userfaultfd.h of Linux 6.8).
constexpr std::uint64_t kFeatureMove = std::uint64_t{1} << 16;
struct MoveArguments {
    std::uint64_t dst;
    std::uint64_t src;
    std::uint64_t len;
    std::uint64_t mode;
    std::int64_t move;
};
constexpr std::uint64_t kMoveModeDontWake = 1;
constexpr unsigned long kIoctlMove = _IOWR(UFFDIO, 0x05, MoveArguments);

std::uint64_t address_of(const std::byte* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

/// userfaultfd_api may be called once a descriptor, so probing and using take one each.
Result<Fd> open_userfaultfd()
{
    Fd fd{static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC))};
    if (fd.valid()) return fd;
    const int first_error = errno;
    const Fd device{::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC)};
    if (device.valid()) {
        fd = Fd{::ioctl(device.get(), _IO(0xAA, 0x00), O_CLOEXEC)};  // USERFAULTFD_IOC_NEW, Linux 6.1
        if (fd.valid()) return fd;
    }
    if (first_error == EPERM) {
        return Error{ErrorCode::kDenied,
                     "userfaultfd: not permitted; run as root, or allow this user /dev/userfaultfd"};
    }
    return Error{ErrorCode::kUnsupported,
                 "userfaultfd: this kernel has none; it must be built with CONFIG_USERFAULTFD"};
}

Status call(int fd, unsigned long request, void* argument, const char* name)
{
    while (::ioctl(fd, request, argument) != 0) {
        if (errno != EAGAIN && errno != EINTR) return Error::from_errno(name);
        ::sched_yield();
    }
    return {};
}

}  // namespace

Result<Userfault> Userfault::create()
{
    auto probe = open_userfaultfd();
    if (!probe) return probe.error();
    uffdio_api offered{.api = UFFD_API, .features = 0, .ioctls = 0};
    SPLITVISOR_TRY(call(probe->get(), UFFDIO_API, &offered, "UFFDIO_API"));

    auto fd = open_userfaultfd();
    if (!fd) return fd.error();
    constexpr std::uint64_t kWanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP | kFeatureMove;
    uffdio_api api{.api = UFFD_API, .features = offered.features & kWanted, .ioctls = 0};
    SPLITVISOR_TRY(call(fd->get(), UFFDIO_API, &api, "UFFDIO_API"));
    return Userfault{std::move(*fd),
                     {.write_protect = (api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) != 0,
                      .move = (api.features & kFeatureMove) != 0}};
}

Status Userfault::watch(std::span<std::byte> range)
{
    std::uint64_t mode = UFFDIO_REGISTER_MODE_MISSING;
    if (features_.write_protect) mode |= UFFDIO_REGISTER_MODE_WP;
    uffdio_register argument{
        .range = {.start = address_of(range.data()), .len = range.size()}, .mode = mode, .ioctls = 0};
    return call(fd_.get(), UFFDIO_REGISTER, &argument, "UFFDIO_REGISTER");
}

Result<std::optional<UserfaultEvent>> Userfault::read_event()
{
    uffd_msg message{};
    const auto count = ::read(fd_.get(), &message, sizeof message);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return std::optional<UserfaultEvent>{};
    if (count < 0) return Error::from_errno("read of userfaultfd");
    if (count != sizeof message || message.event != UFFD_EVENT_PAGEFAULT) {
        return Error{ErrorCode::kCorrupt, "userfaultfd: an event that was not asked for"};
    }
    return std::optional{UserfaultEvent{
        .address = reinterpret_cast<std::byte*>(message.arg.pagefault.address & ~std::uint64_t{kPageBytes - 1}),
        .write_protected = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0}};
}

Result<std::unique_ptr<UserfaultReaders>> UserfaultReaders::create(Userfault& userfault)
{
    const int fd = userfault.fd_.get();
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return Error::from_errno("fcntl of userfaultfd");
    Fd epoll{::epoll_create1(EPOLL_CLOEXEC)};
    if (!epoll.valid()) return Error::from_errno("epoll_create1");
    epoll_event nothing{};
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &nothing) != 0) return Error::from_errno("epoll_ctl of userfaultfd");
    std::unique_ptr<UserfaultReaders> readers{new UserfaultReaders{userfault, std::move(epoll)}};
    SPLITVISOR_TRY(readers->arm());
    return readers;
}

Status UserfaultReaders::set_events(std::uint32_t events)
{
    epoll_event wanted{.events = events, .data = {}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, userfault_.fd_.get(), &wanted) != 0) {
        return Error::from_errno("epoll_ctl of userfaultfd");
    }
    return {};
}

Result<std::optional<UserfaultEvent>> UserfaultReaders::next(Spinner& spinner)
{
    auto event = userfault_.read_event();
    if (!event || *event) return event;
    if (spinner.worthwhile() && !somebody_polls_.exchange(true, std::memory_order_acq_rel)) {
        event = poll(spinner);
        somebody_polls_.store(false, std::memory_order_release);
        if (!event || *event) return event;
    }
    const auto start_ns = now_ns();
    epoll_event ready{};
    const int count = ::epoll_wait(epoll_.get(), &ready, 1, -1);
    if (count < 0 && errno != EINTR) return Error::from_errno("epoll_wait");
    if (count <= 0) return std::optional<UserfaultEvent>{};
    spinner.slept(now_ns() - start_ns);
    event = userfault_.read_event();
    SPLITVISOR_TRY(arm());
    return event;
}

Result<std::optional<UserfaultEvent>> UserfaultReaders::poll(Spinner& spinner)
{
    SPLITVISOR_TRY(disarm());
    Result<std::optional<UserfaultEvent>> event{std::optional<UserfaultEvent>{}};
    (void)spinner.poll([&] {
        event = userfault_.read_event();
        return !event || *event;
    });
    SPLITVISOR_TRY(arm());
    return event;
}

Status Userfault::copy(std::byte* to, const std::byte* from, PageCount pages)
{
    std::uint64_t done = 0;
    while (done < pages.bytes().value()) {
        uffdio_copy argument{.dst = address_of(to) + done,
                             .src = address_of(from) + done,
                             .len = pages.bytes().value() - done,
                             .mode = 0,
                             .copy = 0};
        if (::ioctl(fd_.get(), UFFDIO_COPY, &argument) == 0) return {};
        if (errno != EAGAIN) return Error::from_errno("UFFDIO_COPY");
        if (argument.copy > 0) done += static_cast<std::uint64_t>(argument.copy);
        ::sched_yield();
    }
    return {};
}

void Userfault::wake(std::byte* at, PageCount pages)
{
    uffdio_range range{.start = address_of(at), .len = pages.bytes().value()};
    // It can only fail for a range that is not registered, and then nobody waits there.
    (void)::ioctl(fd_.get(), UFFDIO_WAKE, &range);
}

Status Userfault::protect(std::byte* at, PageCount pages, bool on)
{
    uffdio_writeprotect argument{.range = {.start = address_of(at), .len = pages.bytes().value()},
                                 .mode = on ? static_cast<std::uint64_t>(UFFDIO_WRITEPROTECT_MODE_WP) : 0};
    return call(fd_.get(), UFFDIO_WRITEPROTECT, &argument, "UFFDIO_WRITEPROTECT");
}

PageCount Userfault::move(std::byte* to, std::byte* from, PageCount pages)
{
    const auto total = pages.bytes().value();
    std::uint64_t done = 0;
    while (done < total) {
        MoveArguments argument{.dst = address_of(to) + done,
                               .src = address_of(from) + done,
                               .len = total - done,
                               .mode = kMoveModeDontWake,
                               .move = 0};
        if (::ioctl(fd_.get(), kIoctlMove, &argument) == 0) return pages;
        const int error = errno;
        if (argument.move > 0) done += static_cast<std::uint64_t>(argument.move);
        if (error != EAGAIN) break;
        ::sched_yield();
    }
    return PageCount{done >> kPageShift};
}

}  // namespace splitvisor::ept
