#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"
#include "base/units.h"

namespace splitvisor::vstore {

/// Offsets and lengths of block requests are multiples of this.
inline constexpr std::uint64_t kBlockAlignment = 512;

/// What a backend holds at once. A virtio device keeps to it by not offering more descriptors.
inline constexpr std::size_t kMaxInFlight = 256;

/// Reads and writes up to this size travel as one message; longer ones are cut by the backend, one piece at a
/// time. A device does well to announce limits (size_max, seg_max) that keep requests below it.
inline constexpr std::size_t kBestRequestBytes = 1024 * 1024;

enum class BlockKind { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

struct BlockRequest {
    BlockKind kind = BlockKind::kRead;
    std::uint64_t offset = 0;  ///< bytes; 0 for kFlush
    std::uint64_t length = 0;  ///< bytes; 0 for kFlush
    /// kRead: where the data goes; kWrite: where it comes from; empty for the others. The lengths sum up to
    /// `length`; single vectors need no alignment. The array and the memory it names stay valid and in place
    /// until `done` is called. The memory may be guest RAM whose pages are absent: whoever touches it waits
    /// for the fault engine.
    std::span<const iovec> data;
    /// Called exactly once, by a thread of the backend or by submit() itself, with no lock of the backend
    /// held. It may call submit(). It must not wait for another request. Captures of at most 16 bytes cost no
    /// allocation.
    std::function<void(Status)> done;
};

/// A virtual disk: the door between the VMM's block device and whatever stores the bytes.
///
/// Threads: submit() may be called by any thread, several at once.
///
/// Order: requests complete in any order. A request that must see or follow another is submitted after that
/// one's `done`. Writes, discards and write-zeroes in flight that overlap take effect in the order in which
/// they were submitted.
///
/// Durability: a disk with a volatile write cache. A completed kFlush makes durable every kWrite,
/// kWriteZeroes and kDiscard whose `done` was called before the flush was submitted.
///
/// Waiting: submit() waits for no reply; the longest it takes is what the transport needs to accept the data.
///
/// Errors in `done`: kInvalid (misaligned, out of bounds, lengths do not match), kDenied (a write to a
/// read-only disk; not or no longer ours), kStale (a newer lease epoch exists: this VMM has been fenced),
/// kNoRoom (the storage is full, or more than kMaxInFlight requests), kNotFound (the volume is gone), kIo
/// (the medium failed), kUnavailable (only at the end of the backend). An outage of the storage is no error:
/// requests wait until it is back, however long.
class BlockBackend {
  public:
    /// Requests still in flight are completed with kUnavailable before the destructor returns. No submit()
    /// may run.
    virtual ~BlockBackend() = default;

    virtual void submit(BlockRequest request) = 0;

    [[nodiscard]] virtual ByteCount capacity() const = 0;
    [[nodiscard]] virtual bool read_only() const = 0;
};

}  // namespace splitvisor::vstore
