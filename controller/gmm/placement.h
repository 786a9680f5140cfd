#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/units.h"
#include "controller/model/rejection.h"

namespace splitvisor::controller {

/// What an mComponent has left.
struct MemoryOffer {
    std::string name;
    bool connected = false;
    ByteCount free;
};

/// One vRegion, and the mComponents that keep a replica of it already.
struct RegionRequest {
    ByteCount size;
    std::vector<std::string> kept;
};

struct MemoryPlacement {
    bool possible = false;
    /// For each request its mComponents, all different, the kept ones first; empty where it is not possible.
    std::vector<std::vector<std::string>> replicas;
    /// Why the request could not be fulfilled: what was left of each mComponent when a vRegion found too few.
    std::vector<Rejection> rejected;
};

/// Gives every vRegion `copies` replicas on different mComponents, always those with the most room left; of equals the
/// first by name. Kept replicas take no room: their mComponents have counted them already.
[[nodiscard]] MemoryPlacement place_regions(std::vector<MemoryOffer> offers,
                                            const std::vector<RegionRequest>& requests, std::size_t copies);

/// Divides a vNode's memory into vRegions of `region_size`, the last one shorter.
[[nodiscard]] std::vector<ByteCount> divide_memory(ByteCount memory, ByteCount region_size);

}  // namespace splitvisor::controller
