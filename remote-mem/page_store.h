#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/capability.h"
#include "base/result.h"
#include "base/units.h"

namespace splitvisor::remote_mem {

struct PageRead {
    Line line;
    std::byte* into = nullptr;  ///< kPageBytes; untouched where the page is absent
    bool present = false;       ///< out: false where the store holds nothing for the line
    Version version{};          ///< out: the version it was last written with
};

struct PageWrite {
    Line line;
    const std::byte* from = nullptr;  ///< kPageBytes
    Version version{};                ///< larger than that of any earlier write of the line
};

/// One thread's way to the remote pages of its vNode. Not thread-safe: each fault handler and the evictor has
/// its own. Each call returns when all is done, on every replica for writes and drops, or with the first
/// error that counts:
///   kUnavailable, kTimeout  no replica (read) or not every live replica (write) answered within the
///   session's patience;
///                           the call may be repeated as it is
///   kStale                  a newer lease epoch exists: this VMM has been fenced and must stop
///   kDenied, kNotFound      the region is not (or no longer) there for us: its content is lost
///   kNoRoom                 the mComponent is full; the page is still only here
///   kCorrupt                a page failed its checksum on every replica
class PageSession {
  public:
    virtual ~PageSession() = default;
    [[nodiscard]] virtual Status read(std::span<PageRead> pages) = 0;
    [[nodiscard]] virtual Status write(std::span<const PageWrite> pages) = 0;
    /// Forgets pages; a later read finds them absent. `version` orders the drop among the writes of those
    /// lines.
    [[nodiscard]] virtual Status drop(std::span<const Line> lines, Version version) = 0;
};

/// The remote memory of one vNode. Thread-safe.
class PageStore {
  public:
    virtual ~PageStore() = default;
    /// Connects to every mComponent that holds a replica.
    [[nodiscard]] virtual Result<std::unique_ptr<PageSession>> open_session() = 0;
};

}  // namespace splitvisor::remote_mem
