#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "base/fd.h"
#include "fabric/connection.h"
#include "fabric/frame.h"

namespace splitvisor::fabric {

/// Messages over a connected stream socket (TCP or Unix).
///
/// The socket's own mode does not matter: every call passes MSG_DONTWAIT and waits in poll. Small messages
/// arrive in one recv together with their data; of larger data at most kReadAheadBytes are copied, the rest
/// goes straight to where the caller wants it. Nothing is allocated per message once the buffers have grown
/// to their working size.
class StreamConnection final : public Connection {
  public:
    /// `message_limit_ms` bounds each of these: sending a message; receiving header and head once their first
    /// byte is here; receiving the data once it is asked for.
    StreamConnection(Fd socket, std::string peer, int message_limit_ms);

    [[nodiscard]] Status send(const Message& message) override;
    [[nodiscard]] Result<Incoming> receive(int timeout_ms) override;
    [[nodiscard]] Status receive_data(std::span<const iovec> into) override;
    [[nodiscard]] Status skip_data() override;
    void shutdown() override;
    [[nodiscard]] std::string peer() const override { return peer_; }

  private:
    /// Ends the connection in both directions and names the peer in the error.
    Error broken(ErrorCode code, std::string_view why);
    [[nodiscard]] Status wait_for(short events, std::uint64_t deadline_ms, ErrorCode when_late);
    [[nodiscard]] Status wait_for_input(std::uint64_t deadline_ms);
    [[nodiscard]] bool spin_for_input();
    [[nodiscard]] Status send_all(std::span<iovec> vectors);
    [[nodiscard]] Status fill_buffer(std::size_t needed, std::uint64_t deadline_ms);
    [[nodiscard]] Result<std::size_t> read_some(std::span<iovec> into, std::uint64_t deadline_ms);
    [[nodiscard]] Status read_all(std::span<iovec> vectors);
    [[nodiscard]] std::size_t take_buffered(std::span<std::byte> into);
    [[nodiscard]] std::uint64_t message_deadline() const;
    [[nodiscard]] std::span<const std::byte> buffered() const
    {
        return {buffer_.data() + begin_, end_ - begin_};
    }

    const Fd socket_;
    const std::string peer_;
    const int message_limit_ms_;
    std::atomic<bool> dead_{false};

    // The sender's.
    std::vector<iovec> send_vectors_;

    // The receiver's. [begin_, end_) of the buffer has arrived and is not used yet.
    std::vector<std::byte> buffer_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::vector<iovec> receive_vectors_;
    std::size_t pending_data_bytes_ = 0;  ///< of the last message, neither fetched nor skipped yet
    std::uint32_t pending_data_crc_ = 0;
    int spin_credit_ = 1;  ///< above 0: the next wait spins before it sleeps
};

}  // namespace splitvisor::fabric
