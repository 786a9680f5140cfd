#pragma once

#include <memory>

#include "base/result.h"
#include "base/units.h"
#include "remote-mem/page_store.h"

namespace splitvisor::bench {

/// Pages in plain memory of this process, copied under a lock that few others share. It checks what the real store
/// checks: versions only grow, lines lie inside.
Result<std::unique_ptr<remote_mem::PageStore>> make_in_process_store(ByteCount memory);

}  // namespace splitvisor::bench
