#pragma once

#include <atomic>
#include <limits>
#include <string>
#include <vector>

#include "base/spinner.h"
#include "fabric/connection.h"
#include "fabric/frame.h"

namespace splitvisor::fabric {

/// Messages over anything that carries bytes in order: the framing, the checksums and the limits of time.
/// What carries the bytes derives from this. Nothing is allocated per message once the buffers have grown to
/// their working size.
class FramedConnection : public Connection {
  public:
    [[nodiscard]] Status send(const Message& message) final;
    [[nodiscard]] Result<Incoming> receive(int timeout_ms) final;
    [[nodiscard]] Status receive_data(std::span<const iovec> into) final;
    [[nodiscard]] Status skip_data() final;
    [[nodiscard]] std::string peer() const final { return peer_; }

  protected:
    static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

    /// `message_limit_ms` bounds each of these: sending a message; receiving header and head once their first
    /// byte is here; receiving the data once it is asked for. Header and head are read together with up to
    /// `read_ahead_bytes` of what follows, where a read costs more than copying twice.
    FramedConnection(std::string peer, int message_limit_ms, std::size_t read_ahead_bytes);

    /// The number of bytes moved now, 0 where none can be; errors come from `broken`.
    [[nodiscard]] virtual Result<std::size_t> write_some(std::span<iovec> vectors) = 0;
    [[nodiscard]] virtual Result<std::size_t> read_some(std::span<iovec> into) = 0;
    /// True where read_some would not return 0, without sleeping.
    [[nodiscard]] virtual bool input_ready() = 0;
    /// Sleeps until moving bytes is worth a try or the connection has ended; `late` once the deadline is
    /// over.
    [[nodiscard]] virtual Status sleep_for_input(std::uint64_t deadline_ms) = 0;
    [[nodiscard]] virtual Status sleep_for_output(std::uint64_t deadline_ms) = 0;

    /// Ends the connection in both directions and names the peer in the error.
    Error broken(ErrorCode code, std::string_view why);
    [[nodiscard]] Error late() const;
    void mark_ended() { ended_.store(true); }
    [[nodiscard]] bool ended() const { return ended_.load(); }

  private:
    [[nodiscard]] Status wait_for_input(std::uint64_t deadline_ms);
    [[nodiscard]] Status send_all(std::span<iovec> vectors);
    [[nodiscard]] Status fill_buffer(std::size_t needed, std::uint64_t deadline_ms);
    [[nodiscard]] Result<std::size_t> read_now(std::span<iovec> into, std::uint64_t deadline_ms);
    [[nodiscard]] Status read_all(std::span<iovec> vectors);
    [[nodiscard]] std::size_t take_buffered(std::span<std::byte> into);
    [[nodiscard]] std::uint64_t message_deadline() const;
    [[nodiscard]] std::span<const std::byte> buffered() const
    {
        return {buffer_.data() + begin_, end_ - begin_};
    }

    const std::string peer_;
    const int message_limit_ms_;
    const std::size_t read_ahead_bytes_;
    std::atomic<bool> ended_{false};

    // The sender's.
    std::vector<iovec> send_vectors_;

    // The receiver's. [begin_, end_) of the buffer has arrived and is not used yet.
    std::vector<std::byte> buffer_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::vector<iovec> receive_vectors_;
    std::size_t pending_data_bytes_ = 0;  ///< of the last message, neither fetched nor skipped yet
    std::uint32_t pending_data_crc_ = 0;
    Spinner spinner_;
};

}  // namespace splitvisor::fabric
