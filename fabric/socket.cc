#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/clock.h"
#include "base/fd.h"
#include "fabric/accepting.h"
#include "fabric/rdma.h"
#include "fabric/resolve.h"
#include "fabric/shm_rendezvous.h"
#include "fabric/stream_connection.h"

namespace splitvisor::fabric {

namespace {

constexpr int kBacklog = 256;
/// A peer whose machine vanished is noticed after about a minute, also by a side that only listens.
constexpr int kKeepAliveIdleSeconds = 30;
constexpr int kKeepAliveIntervalSeconds = 10;
constexpr int kKeepAliveProbes = 3;

struct Address {
    sockaddr_storage storage{};
    socklen_t length = 0;
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Address unix_address(const Endpoint& endpoint)
{
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, endpoint.host.c_str(), sizeof name.sun_path - 1);
    Address address;
    std::memcpy(&address.storage, &name, sizeof name);
    address.length = sizeof name;
    return address;
}

/// The first address that the resolver gives.
Result<Address> resolve(const Endpoint& endpoint, bool passive)
{
    if (endpoint.scheme != Endpoint::Scheme::kTcp) return unix_address(endpoint);
    const auto found = resolve_host(endpoint, passive);
    if (!found) return found.error().in(endpoint.to_string());
    Address address;
    std::memcpy(&address.storage, (*found)->ai_addr, (*found)->ai_addrlen);
    address.length = (*found)->ai_addrlen;
    return address;
}

Result<Fd> open_socket(const Endpoint& endpoint, const Address& address)
{
    const int type = endpoint.scheme == Endpoint::Scheme::kShm ? SOCK_SEQPACKET : SOCK_STREAM;
    Fd socket{::socket(address.storage.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!socket.valid()) return Error::from_errno("socket");
    return socket;
}

void set_option(const Fd& socket, int level, int option, int value)
{
    // Each of these makes things quicker or notices a dead peer earlier; none is needed for a right result.
    [[maybe_unused]] const int ignored = ::setsockopt(socket.get(), level, option, &value, sizeof value);
}

void tune_tcp(const Fd& socket, int message_limit_ms)
{
    set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
    set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
    set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
    set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, message_limit_ms);
}

Status await_connected(const Fd& socket, int timeout_ms)
{
    const auto deadline_ms = now_ms() + static_cast<std::uint64_t>(timeout_ms);
    while (true) {
        const auto now = now_ms();
        pollfd waiting{socket.get(), POLLOUT, 0};
        const int ready = ::poll(&waiting, 1, now < deadline_ms ? static_cast<int>(deadline_ms - now) : 0);
        if (ready < 0 && errno != EINTR) return Error::from_errno("poll");
        if (ready == 0)
            return Error{ErrorCode::kTimeout, "no answer within " + std::to_string(timeout_ms) + " ms"};
        if (ready > 0) break;
    }
    int failed = 0;
    socklen_t length = sizeof failed;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &failed, &length) != 0)
        return Error::from_errno("getsockopt");
    if (failed != 0) return Error::from_errno("connect", failed);
    return {};
}

/// Unix sockets answer EAGAIN where the listener's backlog is full; that is not "in progress".
Status connect_socket(const Fd& socket, const Address& address, int timeout_ms)
{
    if (::connect(socket.get(), address.get(), address.length) == 0) return {};
    if (errno == EAGAIN) return Error{ErrorCode::kUnavailable, "connect: the listener's queue is full"};
    if (errno == ENOENT) return Error{ErrorCode::kUnavailable, "connect: there is no such socket"};
    if (errno == EPROTOTYPE)
        return Error{ErrorCode::kInvalid, "connect: the socket there is of the other of unix: and shm:"};
    if (errno != EINPROGRESS && errno != EINTR) return Error::from_errno("connect");
    return await_connected(socket, timeout_ms);
}

Result<std::string> peer_name(const Fd& socket, const Endpoint& local)
{
    if (local.scheme == Endpoint::Scheme::kUnix) return local.to_string();
    Address address;
    address.length = sizeof address.storage;
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    if (::getpeername(socket.get(), address.get(), &address.length) != 0)
        return Error::from_errno("getpeername");
    if (::getnameinfo(address.get(), address.length, host.data(), host.size(), port.data(), port.size(),
                      NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return Error{ErrorCode::kIo, "the peer's address has no name"};
    }
    const std::string name{host.data()};
    return "tcp:" + (name.find(':') == name.npos ? name : "[" + name + "]") + ":" + port.data();
}

class SocketListener final : public Listener {
  public:
    SocketListener(Fd socket, EventFd stop, Endpoint endpoint, int message_limit_ms)
        : socket_{std::move(socket)},
          stop_{std::move(stop)},
          endpoint_{std::move(endpoint)},
          message_limit_ms_{message_limit_ms}
    {
    }
    ~SocketListener() override
    {
        if (endpoint_.scheme == Endpoint::Scheme::kUnix) ::unlink(endpoint_.host.c_str());
    }

    Result<std::unique_ptr<Connection>> accept() override;
    [[nodiscard]] Endpoint endpoint() const override { return endpoint_; }
    void shutdown() override { stop_.signal(); }

  private:
    const Fd socket_;
    const EventFd stop_;  ///< never drained: a listener that was shut down stays so
    const Endpoint endpoint_;
    const int message_limit_ms_;
};

Result<std::unique_ptr<Connection>> SocketListener::accept()
{
    while (true) {
        std::array<pollfd, 2> waiting{{{stop_.fd(), POLLIN, 0}, {socket_.get(), POLLIN, 0}}};
        if (::poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR)
            return Error::from_errno("poll");
        if (waiting[0].revents != 0)
            return Error{ErrorCode::kUnavailable, endpoint_.to_string() + ": shut down"};
        if (waiting[1].revents == 0) continue;

        auto socket = accept_socket(socket_, stop_);
        if (!socket) return socket.error();
        if (!*socket) continue;
        if (endpoint_.scheme == Endpoint::Scheme::kTcp) tune_tcp(**socket, message_limit_ms_);
        auto name = peer_name(**socket, endpoint_);
        if (!name) continue;
        return std::unique_ptr<Connection>{
            std::make_unique<StreamConnection>(std::move(**socket), std::move(*name), message_limit_ms_)};
    }
}

/// A socket file that nobody listens on is what a killed process left behind; anything else stays.
Status remove_stale_socket(const Endpoint& endpoint, const Address& address)
{
    struct stat status {};
    if (::lstat(endpoint.host.c_str(), &status) != 0) return {};
    if (!S_ISSOCK(status.st_mode)) return Error{ErrorCode::kExists, "a file that is no socket is in the way"};
    auto probe = open_socket(endpoint, address);
    if (!probe) return probe.error();
    if (::connect(probe->get(), address.get(), address.length) == 0 || errno != ECONNREFUSED) {
        return Error{ErrorCode::kExists, "another process listens there"};
    }
    if (::unlink(endpoint.host.c_str()) != 0) return Error::from_errno("unlink");
    return {};
}

Status bind_and_listen(const Fd& socket, const Endpoint& endpoint, const Address& address)
{
    if (endpoint.scheme != Endpoint::Scheme::kTcp) SPLITVISOR_TRY(remove_stale_socket(endpoint, address));
    if (endpoint.scheme == Endpoint::Scheme::kTcp) set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
    if (::bind(socket.get(), address.get(), address.length) != 0) return Error::from_errno("bind");
    if (::listen(socket.get(), kBacklog) != 0) return Error::from_errno("listen");
    return {};
}

Result<Endpoint> bound_endpoint(const Fd& socket, Endpoint endpoint)
{
    if (endpoint.scheme == Endpoint::Scheme::kUnix) return endpoint;
    Address address;
    address.length = sizeof address.storage;
    if (::getsockname(socket.get(), address.get(), &address.length) != 0)
        return Error::from_errno("getsockname");
    // The port is at the same place in IPv4 and IPv6 addresses.
    sockaddr_in name{};
    std::memcpy(&name, &address.storage, sizeof name);
    endpoint.port = ntohs(name.sin_port);
    return endpoint;
}

}  // namespace

Result<std::unique_ptr<Connection>> connect(const Endpoint& endpoint, int timeout_ms, int message_limit_ms)
{
    if (endpoint.scheme == Endpoint::Scheme::kRdma)
        return connect_rdma(endpoint, timeout_ms, message_limit_ms);
    const auto address = resolve(endpoint, false);
    if (!address) return address.error();
    auto socket = open_socket(endpoint, *address);
    if (!socket) return socket.error().in(endpoint.to_string());
    if (endpoint.scheme == Endpoint::Scheme::kTcp) tune_tcp(*socket, message_limit_ms);
    const auto connected = connect_socket(*socket, *address, timeout_ms);
    if (!connected) return connected.error().in(endpoint.to_string());
    if (endpoint.scheme == Endpoint::Scheme::kShm)
        return offer_memory(std::move(*socket), endpoint.to_string(), message_limit_ms);
    return std::unique_ptr<Connection>{
        std::make_unique<StreamConnection>(std::move(*socket), endpoint.to_string(), message_limit_ms)};
}

Result<std::unique_ptr<Listener>> listen(const Endpoint& endpoint, int message_limit_ms)
{
    if (endpoint.scheme == Endpoint::Scheme::kRdma) return listen_rdma(endpoint, message_limit_ms);
    const auto address = resolve(endpoint, true);
    if (!address) return address.error();
    auto socket = open_socket(endpoint, *address);
    if (!socket) return socket.error().in(endpoint.to_string());
    const auto listening = bind_and_listen(*socket, endpoint, *address);
    if (!listening) return listening.error().in(endpoint.to_string());
    if (endpoint.scheme == Endpoint::Scheme::kShm)
        return listen_for_memory(std::move(*socket), endpoint, message_limit_ms);
    auto bound = bound_endpoint(*socket, endpoint);
    if (!bound) return bound.error().in(endpoint.to_string());
    auto stop = EventFd::create();
    if (!stop) return stop.error();
    return std::unique_ptr<Listener>{std::make_unique<SocketListener>(std::move(*socket), std::move(*stop),
                                                                      std::move(*bound), message_limit_ms)};
}

}  // namespace splitvisor::fabric
