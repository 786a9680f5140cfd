#include "vmm/console_hub.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <vector>

#include "base/log.h"
#include "vmm/unix_socket.h"

namespace splitvisor::vmm {
namespace {

constexpr std::size_t kScrollbackBytes = 64 * kKiB;
constexpr std::size_t kPendingBytes = kMiB;
constexpr std::size_t kUnsentBytes = kScrollbackBytes + 256 * kKiB;
constexpr std::size_t kInputBytes = 4 * kKiB;
constexpr std::size_t kMaxClients = 16;

Result<Fd> open_log(const std::string& path)
{
    Fd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
    if (!fd.valid()) return Error::from_errno("cannot open " + path);
    return fd;
}

std::uint64_t size_of(const Fd& file)
{
    struct stat info {};
    return ::fstat(file.get(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

}  // namespace

Result<std::unique_ptr<ConsoleHub>> ConsoleHub::start(const Paths& paths)
{
    auto log = open_log(paths.log);
    if (!log) return log.error();
    auto wake = EventFd::create();
    if (!wake) return wake.error();
    // Last: what fails before leaves no socket behind.
    auto listener = listen_at(paths.socket);
    if (!listener) return listener.error();
    const auto log_bytes = size_of(*log);
    return std::unique_ptr<ConsoleHub>{
        new ConsoleHub{paths, std::move(*listener), std::move(*log), log_bytes, std::move(*wake)}};
}

ConsoleHub::ConsoleHub(Paths paths, Fd listener, Fd log, std::uint64_t log_bytes, EventFd wake)
    : paths_{std::move(paths)},
      listener_{std::move(listener)},
      log_{std::move(log)},
      log_bytes_{log_bytes},
      wake_{std::move(wake)}
{
    thread_ = Thread{"console", [this] { run(); }};
}

ConsoleHub::~ConsoleHub()
{
    {
        const std::lock_guard lock{mutex_};
        stop_ = true;
    }
    wake_.signal();
    thread_.join();
    ::unlink(paths_.socket.c_str());
}

void ConsoleHub::write(std::span<const std::byte> bytes)
{
    {
        const std::lock_guard lock{mutex_};
        const auto taken = std::min(bytes.size(), kPendingBytes - pending_.size());
        lost_bytes_ += bytes.size() - taken;
        accepted_bytes_ += taken;
        pending_.append(reinterpret_cast<const char*>(bytes.data()), taken);
        // The hub takes all there is at each turn: one wake-up for many bytes.
        if (pending_.size() != taken) return;
    }
    wake_.signal();
}

void ConsoleHub::set_receiver(Receiver receiver)
{
    {
        const std::lock_guard lock{receiver_mutex_};
        receiver_ = std::move(receiver);
    }
    wake_.signal();
}

void ConsoleHub::flush(std::uint64_t deadline_ms)
{
    std::unique_lock lock{mutex_};
    const auto wanted = accepted_bytes_;
    written_.wait_for(lock, std::chrono::milliseconds{deadline_ms}, [&] { return distributed_bytes_ >= wanted; });
}

std::uint64_t ConsoleHub::lost_bytes() const
{
    const std::lock_guard lock{mutex_};
    return lost_bytes_;
}

void ConsoleHub::run()
{
    std::string output;
    std::vector<pollfd> polled;
    while (wait_for_work(output)) {
        distribute(output);
        feed_receiver();
        polled.assign({{wake_.fd(), POLLIN, 0}, {listener_.get(), POLLIN, 0}});
        for (const auto& client : clients_) {
            const auto input = input_.size() < kInputBytes ? POLLIN : 0;
            const auto unsent = client.unsent.empty() ? 0 : POLLOUT;
            polled.push_back({client.fd.get(), static_cast<short>(input | unsent), 0});
        }
        if (::poll(polled.data(), polled.size(), -1) < 0) continue;
        wake_.drain();
        std::size_t index = 2;
        std::erase_if(clients_, [&](Client& client) { return !serve(client, polled[index++].revents); });
        if (polled[1].revents != 0) accept_clients();
    }
}

bool ConsoleHub::wait_for_work(std::string& output)
{
    const std::lock_guard lock{mutex_};
    output.clear();
    output.swap(pending_);
    return !stop_ || !output.empty();
}

void ConsoleHub::distribute(std::string_view output)
{
    if (output.empty()) return;
    append_to_log(output);
    remember(output);
    std::erase_if(clients_, [&](Client& client) {
        client.unsent += output;
        return !send_unsent(client) || client.unsent.size() > kUnsentBytes;
    });
    {
        const std::lock_guard lock{mutex_};
        distributed_bytes_ += output.size();
    }
    written_.notify_all();
}

void ConsoleHub::append_to_log(std::string_view output)
{
    if (log_bytes_ + output.size() > paths_.log_limit.value() && log_bytes_ > 0) {
        std::rename(paths_.log.c_str(), (paths_.log + ".1").c_str());
        if (auto fresh = open_log(paths_.log); fresh) {
            log_ = std::move(*fresh);
            log_bytes_ = size_of(log_);
        }
    }
    const auto status = write_all(log_.get(), std::as_bytes(std::span{output}));
    if (!status && !log_failed_) log_warning("console log cannot be written", field("error", status.error()));
    log_failed_ = !status.ok();
    log_bytes_ += output.size();
}

void ConsoleHub::remember(std::string_view output)
{
    scrollback_ += output;
    if (scrollback_.size() > kScrollbackBytes) scrollback_.erase(0, scrollback_.size() - kScrollbackBytes);
}

void ConsoleHub::accept_clients()
{
    for (std::size_t tries = 0; tries < kMaxClients; ++tries) {
        auto fd = accept_from(listener_);
        if (!fd.valid()) return;
        if (clients_.size() >= kMaxClients) continue;  // closed at once: there are enough
        clients_.push_back({std::move(fd), scrollback_});
        if (!send_unsent(clients_.back())) clients_.pop_back();
    }
}

bool ConsoleHub::send_unsent(Client& client)
{
    while (!client.unsent.empty()) {
        const auto sent = ::send(client.fd.get(), client.unsent.data(), client.unsent.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        client.unsent.erase(0, static_cast<std::size_t>(sent));
    }
    return true;
}

bool ConsoleHub::serve(Client& client, short events)
{
    if ((events & POLLOUT) != 0 && !send_unsent(client)) return false;
    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) return true;
    std::array<char, 1024> chunk;
    const auto room = std::min(chunk.size(), kInputBytes - std::min(kInputBytes, input_.size()));
    if (room == 0) return (events & (POLLHUP | POLLERR)) == 0;
    const auto count = ::recv(client.fd.get(), chunk.data(), room, 0);
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (count == 0) return false;
    input_.append(chunk.data(), static_cast<std::size_t>(count));
    return true;
}

void ConsoleHub::feed_receiver()
{
    const std::lock_guard lock{receiver_mutex_};
    if (input_.empty() || !receiver_) return;
    input_.erase(0, receiver_(std::as_bytes(std::span{input_})));
}

}  // namespace splitvisor::vmm
