#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "vmm/virtio/split_queue.h"

namespace splitvisor::vmm::virtio {

/// Layouts and checks of virtio-blk requests (virtio 1.2, section 5.2.6), free of threads and back ends.

inline constexpr std::uint64_t kSectorBytes = 512;
/// Section 5.2.6: a device id string has at most 20 bytes and no terminator then.
inline constexpr std::size_t kBlockIdBytes = 20;

/// What the configuration announces. A driver that keeps to it never sends more than 1016 KiB at once, which the back
/// end carries as one message.
inline constexpr std::uint16_t kBlockQueueSize = kMaxQueueSize;
inline constexpr std::uint32_t kSegmentBytesMax = 4096;
inline constexpr std::uint32_t kSegmentsMax = kBlockQueueSize - 2;
inline constexpr std::uint32_t kDiscardSectorsMax = 1u << 22;  ///< 2 GiB a request
/// What is accepted from one that does not.
inline constexpr std::uint64_t kRequestBytesMax = 4 * kMiB;

enum class BlockStatus : std::uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };

inline constexpr std::uint32_t kBlockIn = 0;
inline constexpr std::uint32_t kBlockOut = 1;
inline constexpr std::uint32_t kBlockFlush = 4;
inline constexpr std::uint32_t kBlockGetId = 8;
inline constexpr std::uint32_t kBlockDiscard = 11;
inline constexpr std::uint32_t kBlockWriteZeroes = 13;

/// What the device may do now.
struct BlockLimits {
    std::uint64_t capacity_sectors = 0;
    bool read_only = false;
};

/// A request as it was understood: an answer already, or something for the back end.
struct ParsedBlockRequest {
    enum class Action {
        kAnswer,     ///< `status` is the answer
        kUnusable,   ///< there is no room even for a status byte
        kGetId,
        kRead,       ///< from `offset`, `length` bytes, into the writable bytes of the chain
        kWrite,      ///< `length` bytes of the readable bytes, after the header
        kFlush,
        kDiscard,
        kWriteZeroes,
    };
    Action action = Action::kAnswer;
    BlockStatus status = BlockStatus::kOk;
    std::uint64_t offset = 0;  ///< bytes
    std::uint64_t length = 0;  ///< bytes
};

/// Bytes of a request before the data.
inline constexpr std::uint64_t kBlockHeaderBytes = 16;

/// Reads a chain's header, and a discard's range, and checks every number in them against the limits.
[[nodiscard]] ParsedBlockRequest parse_block_request(const GuestMemory& memory, const Chain& chain,
                                                     const BlockLimits& limits);

}  // namespace splitvisor::vmm::virtio
