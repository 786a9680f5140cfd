#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "remote-mem/page_store.h"

namespace splitvisor::bench {

/// Where the remote pages are during a benchmark.
enum class BackingKind {
    kTcp,        ///< in a memory monitor's server, another process of this machine, over loopback TCP
    kShm,        ///< the same over shared memory
    kInProcess,  ///< in plain memory of this process: what the fault engine costs without a network
    kLocal,      ///< nowhere: all memory is local and there is no fault engine
};
[[nodiscard]] Result<BackingKind> parse_backing(std::string_view text);
[[nodiscard]] std::string_view to_string(BackingKind kind);

/// Makes page stores, each of them empty, for one guest after the other. Not thread-safe.
class Backing {
  public:
    virtual ~Backing() = default;

    /// The store must be gone before the next is opened.
    [[nodiscard]] virtual Result<std::unique_ptr<remote_mem::PageStore>> open(ByteCount memory) = 0;
};

/// kTcp and kShm start the server process, so it comes before any thread. `capacity`: the largest memory that will be opened.
/// Not for kLocal.
[[nodiscard]] Result<std::unique_ptr<Backing>> make_backing(BackingKind kind, ByteCount capacity);

}  // namespace splitvisor::bench
