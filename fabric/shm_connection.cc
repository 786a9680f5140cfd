#include "fabric/shm_connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/clock.h"

namespace splitvisor::fabric {

namespace {

/// A peer that was killed wakes nobody: so often a sleeper looks at the socket.
constexpr std::uint64_t kLookMs = 100;
/// Looks at the ring before the caller gives the processor away.
constexpr int kLooksPerSpin = 16;

constexpr std::string_view kPeerClosed = "the peer closed the connection";
constexpr std::string_view kImpossible = "a position in the shared memory that no peer of ours writes";

std::size_t index_of_sent(ShmConnection::Side side)
{
    return side == ShmConnection::Side::kConnecting ? 0 : 1;
}

}  // namespace

ShmConnection::ShmConnection(Fd socket, Mapping memory, Side side, std::string peer, int message_limit_ms)
    : FramedConnection{std::move(peer), message_limit_ms, 0},
      socket_{std::move(socket)},
      memory_{std::move(memory)},
      layout_{*reinterpret_cast<ShmLayout*>(memory_.data())},
      out_{layout_.control[index_of_sent(side)],
           std::span<std::byte, kRingBytes>{layout_.bytes[index_of_sent(side)]}},
      in_{layout_.control[1 - index_of_sent(side)],
          std::span<const std::byte, kRingBytes>{layout_.bytes[1 - index_of_sent(side)]}}
{
}

ShmConnection::~ShmConnection()
{
    shutdown();
}

/// Wakes both ends of both rings: our own threads and the peer's.
void ShmConnection::shutdown()
{
    mark_ended();
    layout_.closed.store(1);
    ::shutdown(socket_.get(), SHUT_RDWR);
    for (auto& control : layout_.control) {
        futex_wake(control.reader_waits);
        futex_wake(control.writer_waits);
    }
}

bool ShmConnection::closed() const
{
    return ended() || layout_.closed.load() != 0;
}

/// Nothing is sent over the socket after the rendezvous: whatever poll reports is its end.
bool ShmConnection::peer_died()
{
    pollfd waiting{socket_.get(), POLLIN, 0};
    if (::poll(&waiting, 1, 0) > 0) peer_died_.store(true);
    return peer_died_.load();
}

Result<std::size_t> ShmConnection::write_some(std::span<iovec> vectors)
{
    if (closed() || peer_died_.load()) return broken(ErrorCode::kUnavailable, kPeerClosed);
    const auto count = out_.write(vectors);
    if (!count) return broken(ErrorCode::kCorrupt, kImpossible);
    return *count;
}

Result<std::size_t> ShmConnection::read_some(std::span<iovec> into)
{
    if (ended()) return broken(ErrorCode::kUnavailable, "");
    // Asked before the ring is read: what was written before the end is still received.
    const bool over = closed() || peer_died_.load();
    const auto count = in_.read(into);
    if (!count) return broken(ErrorCode::kCorrupt, kImpossible);
    if (*count == 0 && over) return broken(ErrorCode::kUnavailable, kPeerClosed);
    return *count;
}

bool ShmConnection::input_ready()
{
    for (int look = 0; look < kLooksPerSpin; ++look) {
        if (in_.ready() || closed()) return true;
        __builtin_ia32_pause();
    }
    return false;
}

template <typename RingEnd>
Status ShmConnection::sleep_on(RingEnd& end, std::uint64_t deadline_ms)
{
    while (true) {
        if (end.ready() || closed() || peer_died()) return {};
        const auto now = now_ms();
        if (now >= deadline_ms) return late();
        end.sleep([&] { return !closed(); }, static_cast<int>(std::min(deadline_ms - now, kLookMs)));
    }
}

Status ShmConnection::sleep_for_input(std::uint64_t deadline_ms)
{
    return sleep_on(in_, deadline_ms);
}
Status ShmConnection::sleep_for_output(std::uint64_t deadline_ms)
{
    return sleep_on(out_, deadline_ms);
}

}  // namespace splitvisor::fabric
