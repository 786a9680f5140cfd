#pragma once

#include "base/fd.h"
#include "fabric/framed_connection.h"

namespace splitvisor::fabric {

/// Messages over a connected stream socket (TCP or Unix).
///
/// The socket's own mode does not matter: every call passes MSG_DONTWAIT and waits in poll. Small messages
/// arrive in one recv together with their data; of larger data at most kReadAheadBytes are copied, the rest
/// goes straight to where the caller wants it.
class StreamConnection final : public FramedConnection {
  public:
    StreamConnection(Fd socket, std::string peer, int message_limit_ms);
    void shutdown() override;

  private:
    [[nodiscard]] Result<std::size_t> write_some(std::span<iovec> vectors) override;
    [[nodiscard]] Result<std::size_t> read_some(std::span<iovec> into) override;
    [[nodiscard]] bool input_ready() override;
    [[nodiscard]] Status sleep_for_input(std::uint64_t deadline_ms) override;
    [[nodiscard]] Status sleep_for_output(std::uint64_t deadline_ms) override;
    [[nodiscard]] Status wait_for(short events, std::uint64_t deadline_ms);

    const Fd socket_;
};

}  // namespace splitvisor::fabric
