#pragma once

#include "base/fd.h"
#include "base/mapping.h"
#include "fabric/framed_connection.h"
#include "fabric/shm_ring.h"

namespace splitvisor::fabric {

/// Messages through two rings in memory shared with a process on the same machine. The socket, over which the
/// memory was passed, only tells that the peer died; a peer that shuts down says so in the memory.
///
/// The peer may write anything into the memory at any time. Positions are checked, bytes are copied once and
/// then checked as those of a socket are; the memory itself cannot shrink (see shm_rendezvous).
class ShmConnection final : public FramedConnection {
  public:
    enum class Side { kConnecting, kListening };

    /// `memory` holds a ShmLayout.
    ShmConnection(Fd socket, Mapping memory, Side side, std::string peer, int message_limit_ms);
    ~ShmConnection() override;
    void shutdown() override;

  private:
    [[nodiscard]] Result<std::size_t> write_some(std::span<iovec> vectors) override;
    [[nodiscard]] Result<std::size_t> read_some(std::span<iovec> into) override;
    [[nodiscard]] bool input_ready() override;
    [[nodiscard]] Status sleep_for_input(std::uint64_t deadline_ms) override;
    [[nodiscard]] Status sleep_for_output(std::uint64_t deadline_ms) override;

    [[nodiscard]] bool closed() const;
    [[nodiscard]] bool peer_died();
    template <typename RingEnd>
    [[nodiscard]] Status sleep_on(RingEnd& end, std::uint64_t deadline_ms);

    const Fd socket_;
    const Mapping memory_;
    ShmLayout& layout_;
    std::atomic<bool> peer_died_{false};
    RingWriter out_;
    RingReader in_;
};

}  // namespace splitvisor::fabric
