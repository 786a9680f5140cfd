#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "fabric/accepting.h"
#include "fabric/shm_rendezvous.h"

namespace splitvisor::fabric {

namespace {

/// Whoever connects sends the offer at once; so long and for so many at a time we wait without accepting
/// less.
constexpr std::uint64_t kOfferMs = 1'000;
constexpr std::size_t kMaxPending = 64;

/// Accepts sockets, keeps those whose offer is still to come, and gives out connections. One that connects
/// and says nothing holds up nobody.
class ShmListener final : public Listener {
  public:
    ShmListener(Fd socket, EventFd stop, Endpoint endpoint, int message_limit_ms)
        : socket_{std::move(socket)},
          stop_{std::move(stop)},
          endpoint_{std::move(endpoint)},
          message_limit_ms_{message_limit_ms}
    {
    }
    ~ShmListener() override { ::unlink(endpoint_.host.c_str()); }

    Result<std::unique_ptr<Connection>> accept() override;
    [[nodiscard]] Endpoint endpoint() const override { return endpoint_; }
    void shutdown() override { stop_.signal(); }

  private:
    struct Pending {
        Fd socket;
        std::uint64_t deadline_ms;
    };

    [[nodiscard]] Status take_socket();
    void fill_waiting();
    void drop_late();

    const Fd socket_;
    const EventFd stop_;  ///< never drained: a listener that was shut down stays so
    const Endpoint endpoint_;
    const int message_limit_ms_;

    // The accepting thread's.
    std::vector<Pending> pending_;  ///< the oldest first
    std::vector<pollfd> waiting_;   ///< stop, the listening socket, then the pending ones in order
};

void ShmListener::fill_waiting()
{
    waiting_.clear();
    waiting_.push_back({stop_.fd(), POLLIN, 0});
    waiting_.push_back({pending_.size() < kMaxPending ? socket_.get() : -1, POLLIN, 0});
    for (const auto& pending : pending_) waiting_.push_back({pending.socket.get(), POLLIN, 0});
}

void ShmListener::drop_late()
{
    const auto now = now_ms();
    std::erase_if(pending_, [&](const Pending& pending) { return pending.deadline_ms <= now; });
}

Status ShmListener::take_socket()
{
    auto socket = accept_socket(socket_, stop_);
    if (!socket) return socket.error();
    if (*socket) pending_.push_back({std::move(**socket), now_ms() + kOfferMs});
    return {};
}

Result<std::unique_ptr<Connection>> ShmListener::accept()
{
    while (true) {
        drop_late();
        fill_waiting();
        const int patience = pending_.empty() ? -1 : static_cast<int>(kOfferMs);
        if (::poll(waiting_.data(), waiting_.size(), patience) < 0 && errno != EINTR)
            return Error::from_errno("poll");
        if (waiting_[0].revents != 0)
            return Error{ErrorCode::kUnavailable, endpoint_.to_string() + ": shut down"};
        const auto ready = std::find_if(waiting_.begin() + 2, waiting_.end(),
                                        [](const pollfd& p) { return p.revents != 0; });
        if (ready != waiting_.end()) {
            const auto place = pending_.begin() + (ready - waiting_.begin() - 2);
            auto socket = std::move(place->socket);
            pending_.erase(place);
            auto taken = take_memory(std::move(socket), endpoint_.to_string(), message_limit_ms_);
            // One that went away concerns nobody; one that offered nonsense is worth a line in a log.
            if (taken || taken.error().code() != ErrorCode::kUnavailable) return taken;
        } else if (waiting_[1].revents != 0) {
            SPLITVISOR_TRY(take_socket());
        }
    }
}

}  // namespace

Result<std::unique_ptr<Listener>> listen_for_memory(Fd socket, const Endpoint& endpoint, int message_limit_ms)
{
    auto stop = EventFd::create();
    if (!stop) return stop.error();
    return std::unique_ptr<Listener>{
        std::make_unique<ShmListener>(std::move(socket), std::move(*stop), endpoint, message_limit_ms)};
}

}  // namespace splitvisor::fabric
