#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "controller/components/component_hub.h"
#include "controller/gmm/placement.h"
#include "controller/model/catalog.h"

namespace splitvisor::controller {

/// The global memory manager: which mComponents hold which vRegions, and the commands that go there. Thread-safe.
class MemoryManager {
  public:
    MemoryManager(ComponentHub& hub, ByteCount region_size) : hub_{hub}, region_size_{region_size} {}

    /// Every mComponent that was ever enrolled.
    [[nodiscard]] std::vector<MemoryOffer> offers(const Contents& contents) const;

    [[nodiscard]] std::vector<ByteCount> sizes_of(ByteCount memory) const { return divide_memory(memory, region_size_); }

    /// Places all vRegions of a new vNode.
    [[nodiscard]] MemoryPlacement place(const Contents& contents, ByteCount memory, std::size_t copies) const;

    /// Places a vNode's vRegions again: replicas stay where they are unless their mComponent is away.
    [[nodiscard]] MemoryPlacement place_again(const Contents& contents, const VnodeRecord& vnode) const;

    /// The vRegions of a placement, with fresh ids and capabilities from the draft.
    [[nodiscard]] static std::vector<RegionRecord> make_regions(Draft& draft, const MemoryPlacement& placement,
                                                                const std::vector<ByteCount>& sizes);

    /// Creates every replica at its mComponent; ends at the first that fails.
    [[nodiscard]] Status create(const std::vector<RegionRecord>& regions, Epoch epoch);
    [[nodiscard]] Status remove(const std::string& component, RegionId region);

  private:
    ComponentHub& hub_;
    const ByteCount region_size_;
};

}  // namespace splitvisor::controller
