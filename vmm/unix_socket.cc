#include "vmm/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace splitvisor::vmm {

Result<Fd> listen_at(const std::string& path)
{
    constexpr int kBacklog = 16;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return Error{ErrorCode::kInvalid, path + ": too long for the name of a socket"};
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd.valid()) return Error::from_errno("socket for " + path);
    ::unlink(path.c_str());
    // A socket's mode is that of its descriptor at bind, so there is no moment in which others could connect.
    if (::fchmod(fd.get(), 0600) != 0) return Error::from_errno(path);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return Error::from_errno("cannot create " + path);
    }
    if (::listen(fd.get(), kBacklog) != 0) return Error::from_errno(path);
    return fd;
}

Fd accept_from(const Fd& listener)
{
    return Fd{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
}

}  // namespace splitvisor::vmm
