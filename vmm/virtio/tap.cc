#include "vmm/virtio/tap.h"

#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace splitvisor::vmm::virtio {

namespace {

/// What a failed read or write of the tap means for the one frame, or for all that would follow.
TapDevice::Outcome outcome_of(int error)
{
    switch (error) {
    case EAGAIN:
    case EINTR: return TapDevice::Outcome::kWouldBlock;
    case EBADFD:  // the interface was deleted
    case EBADF:
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOTCONN:
    case EPIPE: return TapDevice::Outcome::kGone;
    default: return TapDevice::Outcome::kDropped;
    }
}

}  // namespace

Result<TapDevice> TapDevice::open(const std::string& name)
{
    if (name.empty() || name.size() >= IFNAMSIZ) return Error{ErrorCode::kInvalid, "tap name has not 1 to 15 characters"};
    // The kernel would make an interface of a mistyped name, and nobody would ever speak through it.
    if (::if_nametoindex(name.c_str()) == 0) {
        return Error{ErrorCode::kNotFound, "there is no tap " + name + "; make it: ip tuntap add dev " + name + " mode tap"};
    }
    Fd fd{::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
    if (!fd.valid()) return Error::from_errno("open /dev/net/tun");
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(fd.get(), TUNSETIFF, &request) < 0) return Error::from_errno("TUNSETIFF " + name);
    int header = kNetHeaderBytes;
    if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header) < 0) return Error::from_errno("TUNSETVNETHDRSZ " + name);
    if (::ioctl(fd.get(), TUNSETOFFLOAD, 0) < 0) return Error::from_errno("TUNSETOFFLOAD " + name);
    return TapDevice{std::move(fd)};
}

TapDevice::Received TapDevice::receive(std::span<std::byte> into) const
{
    const auto count = ::read(fd_.get(), into.data(), into.size());
    if (count < 0) return {outcome_of(errno), 0};
    if (count == 0) return {Outcome::kGone, 0};
    return {Outcome::kDone, static_cast<std::size_t>(count)};
}

TapDevice::Outcome TapDevice::send(std::span<const std::byte> frame) const
{
    return ::write(fd_.get(), frame.data(), frame.size()) < 0 ? outcome_of(errno) : Outcome::kDone;
}

}  // namespace splitvisor::vmm::virtio
