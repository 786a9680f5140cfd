#include "vmm/control_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>

#include "base/units.h"
#include "vmm/control_protocol.h"
#include "vmm/unix_socket.h"

namespace splitvisor::vmm {
namespace {

constexpr std::size_t kMaxLine = 64 * kKiB;
constexpr time_t kSendSeconds = 5;

/// Sends a line to a blocking socket that has a send time-out; false where the client does not take it.
bool send_line(const Fd& fd, std::string text)
{
    text += '\n';
    std::string_view rest = text;
    while (!rest.empty()) {
        const auto sent = ::send(fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

void make_blocking(const Fd& fd)
{
    const int flags = ::fcntl(fd.get(), F_GETFL);
    ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK);
    const timeval limit{kSendSeconds, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& path, Respond respond)
{
    auto listener = listen_at(path);
    if (!listener) return listener.error();
    auto stop = EventFd::create();
    if (!stop) return stop.error();
    return std::unique_ptr<ControlServer>{
        new ControlServer{path, std::move(*listener), std::move(*stop), std::move(respond)}};
}

ControlServer::ControlServer(std::string path, Fd listener, EventFd stop, Respond respond)
    : path_{std::move(path)}, listener_{std::move(listener)}, stop_{std::move(stop)}, respond_{std::move(respond)}
{
    thread_ = Thread{"control", [this] { accept_clients(); }};
}

ControlServer::~ControlServer()
{
    stop_.signal();
    thread_.join();
    for (const auto& client : clients_) ::shutdown(client.fd.get(), SHUT_RDWR);
    clients_.clear();
    ::unlink(path_.c_str());
}

void ControlServer::accept_clients()
{
    while (true) {
        std::array<pollfd, 2> polled{{{stop_.fd(), POLLIN, 0}, {listener_.get(), POLLIN, 0}}};
        if (::poll(polled.data(), polled.size(), -1) < 0) continue;
        if (polled[0].revents != 0) return;
        std::erase_if(clients_, [](const Client& client) { return client.done.load(); });
        if (auto fd = accept_from(listener_); fd.valid()) admit(std::move(fd));
    }
}

void ControlServer::admit(Fd fd)
{
    make_blocking(fd);
    if (clients_.size() >= kMaxClients) {
        // Short enough for the socket's buffer: this does not wait.
        send_line(fd, format_error(Error{ErrorCode::kNoRoom, "too many clients"}));
        return;
    }
    auto& client = clients_.emplace_back();
    client.fd = std::move(fd);
    client.thread = Thread{"control-client", [this, &client] {
                               serve(client.fd);
                               ::shutdown(client.fd.get(), SHUT_RDWR);
                               client.done.store(true);
                           }};
}

void ControlServer::serve(const Fd& fd)
{
    std::string buffer;
    std::array<char, 4096> chunk;
    while (true) {
        const auto count = ::recv(fd.get(), chunk.data(), chunk.size(), 0);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return;
        buffer.append(chunk.data(), static_cast<std::size_t>(count));
        if (!answer_lines(fd, buffer)) return;
    }
}

bool ControlServer::answer_lines(const Fd& fd, std::string& buffer)
{
    for (auto end = buffer.find('\n'); end <= kMaxLine; end = buffer.find('\n')) {
        const auto answer = respond_(std::string_view{buffer}.substr(0, end));
        buffer.erase(0, end + 1);
        const bool sent = send_line(fd, answer.text);
        if (answer.after_sent) answer.after_sent();
        if (!sent) return false;
    }
    if (buffer.size() <= kMaxLine) return true;
    send_line(fd, format_error(Error{ErrorCode::kInvalid, "line longer than 64 KiB"}));
    return false;
}

}  // namespace splitvisor::vmm
