#pragma once

#include <memory>

#include "base/result.h"
#include "ept/fault_engine.h"
#include "tests/bench/backing.h"
#include "tests/bench/paged_memory.h"
#include "tests/bench/textbook_pager.h"

namespace splitvisor::bench {

/// Ours and the textbook pager with the same memory and the same room, every page of both stamped.
struct Pagers {
    std::unique_ptr<PagedMemory> ours;
    std::unique_ptr<PagedMemory> textbook;
};

/// `backing`, which outlives them, keeps our remote pages, `remote` those of the textbook pager.
[[nodiscard]] Result<Pagers> make_pagers(const ept::EngineOptions& options, Backing& backing,
                                         std::unique_ptr<PlainRemote> remote);

/// Before a run of the textbook pager. Ours keeps idle processors awake for a moment beyond its last fault (IdleLatency), which
/// the textbook pager's must not have.
void wait_until_idle_processors_halt();

}  // namespace splitvisor::bench
