#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace splitvisor::fabric {

/// Where a component can be reached: "tcp:HOST:PORT" ("HOST:PORT" means the same), "rdma:HOST:PORT", "unix:/path", or
/// "shm:/path": memory shared with a process on the same machine, agreed on over a Unix socket at the path.
struct Endpoint {
    enum class Scheme { kTcp, kRdma, kUnix, kShm };
    Scheme scheme = Scheme::kTcp;
    std::string host;  ///< kTcp, kRdma: name or address; kUnix, kShm: path
    std::uint16_t port = 0;

    static Result<Endpoint> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;
    bool operator==(const Endpoint&) const = default;
};

/// A message has a small head (the protocol's own struct, at most kMaxHeadBytes) and bulk data (pages,
/// sectors; at most kMaxDataBytes). On the wire a fixed frame header comes first: magic, kind, status,
/// request id, both lengths, and a crc32c for header and head and one for the data.
inline constexpr std::size_t kMaxHeadBytes = 64 * 1024;
inline constexpr std::size_t kMaxDataBytes = 4 * 1024 * 1024;

struct Message {
    std::uint16_t kind = 0;        ///< the protocol's request number; a reply repeats it
    std::uint16_t status = 0;      ///< replies: 0, or 1 + ErrorCode; the data is then the error text
    std::uint64_t request_id = 0;  ///< chosen by the client, repeated in the reply
    std::span<const std::byte> head;
    std::span<const iovec> data;  ///< gathered, not copied
};

/// What arrived, up to its head. The data is still in the transport: fetch it with receive_data or drop it
/// with skip_data before the next receive.
struct Incoming {
    std::uint16_t kind = 0;
    std::uint16_t status = 0;
    std::uint64_t request_id = 0;
    std::span<const std::byte> head;  ///< valid until the next receive
    std::size_t data_bytes = 0;
};

/// A connected, ordered, reliable stream of messages between two components.
/// Threads: one thread may send while another receives; neither call may be made by two threads at once.
/// shutdown() may be called by any thread and makes both return kUnavailable.
class Connection {
  public:
    virtual ~Connection() = default;

    /// Blocks until the transport has taken the whole message. kInvalid: a part is larger than a message may
    /// be, nothing was sent. kTimeout: the peer took too long, the connection ended. kUnavailable: it ended.
    [[nodiscard]] virtual Status send(const Message& message) = 0;

    /// Waits for the next message. `timeout_ms` < 0 waits for ever. kTimeout: nothing arrived, the connection
    /// is still good. kCorrupt: a checksum or a length is wrong, the connection is not usable any more.
    /// kUnavailable: it ended, or the peer stalled in the middle of a message.
    [[nodiscard]] virtual Result<Incoming> receive(int timeout_ms) = 0;

    /// Fills the vectors, whose lengths sum up to Incoming::data_bytes, and checks the checksum. After any
    /// error what was written to the vectors must not be used, and the connection has ended.
    [[nodiscard]] virtual Status receive_data(std::span<const iovec> into) = 0;
    [[nodiscard]] virtual Status skip_data() = 0;

    /// Final. What has arrived and was not received yet is lost.
    virtual void shutdown() = 0;

    /// The peer, for messages to people.
    [[nodiscard]] virtual std::string peer() const = 0;
};

/// How long one message may take on its way, from its first byte to its last: a peer that stalls in the
/// middle of a message, or takes nothing from us, ends the connection instead of holding a thread for ever.
inline constexpr int kMessageLimitMs = 30'000;

/// Connects within the deadline. The error names the endpoint. Looking up a host by name is the resolver's
/// time.
Result<std::unique_ptr<Connection>> connect(const Endpoint& endpoint, int timeout_ms,
                                            int message_limit_ms = kMessageLimitMs);

/// The bytes sent and received by all connections of this process, for statistics.
struct Traffic {
    std::uint64_t sent_bytes = 0;
    std::uint64_t received_bytes = 0;
};
[[nodiscard]] Traffic traffic();

/// Accepts connections. Threads: accept() by one thread; shutdown() by any, after which accept() returns
/// kUnavailable.
class Listener {
  public:
    virtual ~Listener() = default;
    /// Any error but kUnavailable is transient (no descriptors left, say): log it and go on.
    [[nodiscard]] virtual Result<std::unique_ptr<Connection>> accept() = 0;
    /// The real endpoint: a port of 0 was replaced by the one the kernel chose.
    [[nodiscard]] virtual Endpoint endpoint() const = 0;
    virtual void shutdown() = 0;
};

Result<std::unique_ptr<Listener>> listen(const Endpoint& endpoint, int message_limit_ms = kMessageLimitMs);

}  // namespace splitvisor::fabric
