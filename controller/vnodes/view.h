#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "controller/json/json.h"
#include "controller/model/catalog.h"
#include "controller/model/records.h"

namespace splitvisor::controller {

/// "2025-01-31T12:00:00Z"; null for 0.
[[nodiscard]] Json utc_text(std::uint64_t seconds);

/// A vNode as the API shows it; `state` may be "unknown", which no record has.
[[nodiscard]] Json vnode_view(const VnodeRecord& record, std::string_view state, std::string_view reason);

/// What vnode-vmm is to run, except for what the pComponent adds: run_dir, and the folder of kernel and initrd.
[[nodiscard]] Json vmm_spec(const Contents& contents, const VnodeRecord& record);

}  // namespace splitvisor::controller
