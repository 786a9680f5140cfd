#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/units.h"
#include "tests/bench/paged_memory.h"

// The textbook pager, a baseline: one thread sleeps in read(2) on a userfaultfd, asks a server in another process for one
// page over plain TCP (a 16-byte request, a 4 KiB reply, no delay of small messages), installs it with UFFDIO_COPY, and when
// its part of memory is full writes the oldest page back, waits for the acknowledgement, and drops it.
namespace splitvisor::bench {

/// Pages that are somewhere else, one at a time: what a pager needs at the least. Not thread-safe.
class PlainRemote {
  public:
    virtual ~PlainRemote() = default;
    /// `into`, `from`: kPageBytes. Pages that were never written are zero.
    [[nodiscard]] virtual Status read(Line line, std::byte* into) = 0;
    /// Returns when the other side has the page.
    [[nodiscard]] virtual Status write(Line line, const std::byte* from) = 0;
};

enum class PlainKind {
    kTcpSleeping,  ///< a server process over loopback TCP; both ends sleep while they wait
    kTcpSpinning,  ///< the same; both ends poll for as long as our own transport does before they sleep
    kShmSleeping,  ///< a server process, one request and one page between the two in shared memory; both ends sleep
    kShmSpinning,  ///< the same; both ends poll first
    kMemory,       ///< plain memory of this process
};

/// All but kMemory fork: the caller has no other thread yet.
[[nodiscard]] Result<std::unique_ptr<PlainRemote>> make_plain_remote(PlainKind kind, ByteCount memory);
[[nodiscard]] Result<std::unique_ptr<PlainRemote>> make_shm_remote(ByteCount memory, bool spins);

/// The pager over it, with `local` pages of room. It drops a page after reading it, so a write in between would be lost:
/// nobody may write while another thread faults.
[[nodiscard]] Result<std::unique_ptr<PagedMemory>> make_textbook_pager(ByteCount memory, PageCount local,
                                                                       std::unique_ptr<PlainRemote> remote);

}  // namespace splitvisor::bench
