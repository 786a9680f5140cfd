#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/capability.h"
#include "base/result.h"
#include "base/units.h"
#include "vstore/block_backend.h"

namespace splitvisor::vstore {

/// The storage protocol: messages of fabric/connection.h whose head is a RequestHead (requests) or, for kOpen
/// and kIdentify, an IdentityHead (replies); other replies have no head. Bytes read and written are the
/// message's data. A failed reply has status 1 + ErrorCode and the error text as data.
///
/// A connection serves one volume. Its first request is kOpen, which carries the session; the client sends
/// nothing more until that is answered. The monitor answers only when no request of an older session of the
/// volume can still take effect, so what a client sends after an answer is never overtaken by what it, or a
/// VMM before it, sent earlier. kIdentify may be sent instead of kOpen, takes no session, and is all such a
/// connection can do.
enum class RequestKind : std::uint16_t {
    kOpen = 1,
    kIdentify = 2,
    kPing = 3,
    kRead = 4,
    kWrite = 5,
    kFlush = 6,
    kDiscard = 7,
    kWriteZeroes = 8,
};

/// Takes the same time wherever the two differ.
[[nodiscard]] bool same_capability(const Capability& a, const Capability& b);

/// One connection of one client. `instance` is random and made once by each client; `counter` grows with each
/// of its connections. Of one instance the larger counter wins; of two instances the later to arrive wins,
/// for good.
struct SessionKey {
    std::uint64_t instance = 0;
    std::uint64_t counter = 0;
    bool operator==(const SessionKey&) const = default;
};

inline constexpr std::uint32_t kFlagReadOnly = 1;  ///< kOpen: a session that cannot write and fences no one

struct RequestHead {
    std::uint64_t volume = 0;
    std::uint64_t epoch = 0;
    Capability capability{};
    SessionKey session{};
    std::uint64_t offset = 0;  ///< bytes
    std::uint64_t length = 0;  ///< bytes
    std::uint32_t flags = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(RequestHead) == 72);

inline constexpr std::uint32_t kFlagWriteThrough = 1;  ///< acknowledged writes are durable without a flush

struct IdentityHead {
    std::uint64_t size_bytes = 0;
    /// Differs when the sComponent's kernel was started anew: acknowledged writes that were not flushed are
    /// then lost.
    std::array<std::byte, 16> boot_id{};
    std::uint32_t flags = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(IdentityHead) == 32);

struct Request {
    RequestKind kind{};
    RequestHead head{};
};

/// Most bytes that one request reads or writes. kDiscard and kWriteZeroes carry none and have no limit but
/// the size.
inline constexpr std::size_t kMaxRequestBytes = kBestRequestBytes;

/// Most requests a connection serves at once; a client that sends more waits in the transport.
inline constexpr std::size_t kMaxServed = kMaxInFlight;

/// Checks what can be known without the volume: the kind, the head's length, reserved bits, alignment, the
/// length against the data that came along. The volume's bounds are check_bounds's.
Result<Request> parse_request(std::uint16_t kind, std::span<const std::byte> head, std::size_t data_bytes);

/// kInvalid where [offset, offset + length) is misaligned, overflows or leaves a volume of `size` bytes.
Status check_bounds(std::uint64_t offset, std::uint64_t length, ByteCount size);

[[nodiscard]] bool changes_data(RequestKind kind);

[[nodiscard]] constexpr std::uint16_t status_of(ErrorCode code)
{
    return static_cast<std::uint16_t>(1 + static_cast<std::uint16_t>(code));
}

/// The error of a reply with this non-zero status; an unknown one is kCorrupt.
Error error_of(std::uint16_t status, std::string text);

}  // namespace splitvisor::vstore
