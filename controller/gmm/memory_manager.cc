#include "controller/gmm/memory_manager.h"

#include <algorithm>

namespace splitvisor::controller {

namespace {
constexpr std::uint64_t kRegionMs = 10'000;
}

std::vector<MemoryOffer> MemoryManager::offers(const Contents& contents) const
{
    std::vector<MemoryOffer> offers;
    for (const auto& [name, component] : contents.components) {
        if (component.kind != ComponentKind::kMemory) continue;
        MemoryOffer offer{name, false, ByteCount{}};
        if (const auto status = hub_.find(name)) {
            // What it reports can hold regions this controller does not know.
            const std::uint64_t taken = std::max(status->used.value(), contents.allocated_on(name).value());
            offer.connected = true;
            offer.free = ByteCount{status->capacity.value() > taken ? status->capacity.value() - taken : 0};
        }
        offers.push_back(std::move(offer));
    }
    return offers;
}

MemoryPlacement MemoryManager::place(const Contents& contents, ByteCount memory, std::size_t copies) const
{
    std::vector<RegionRequest> requests;
    for (const ByteCount size : sizes_of(memory)) requests.push_back({size, {}});
    return place_regions(offers(contents), requests, copies);
}

MemoryPlacement MemoryManager::place_again(const Contents& contents, const VnodeRecord& vnode) const
{
    auto left = offers(contents);
    std::vector<RegionRequest> requests;
    for (const RegionRecord& region : vnode.regions) {
        RegionRequest request{region.size, {}};
        for (const ReplicaRecord& replica : region.replicas) {
            if (hub_.find(replica.component)) request.kept.push_back(replica.component);
        }
        requests.push_back(std::move(request));
    }
    return place_regions(std::move(left), requests, vnode.memory_copies);
}

std::vector<RegionRecord> MemoryManager::make_regions(Draft& draft, const MemoryPlacement& placement,
                                                      const std::vector<ByteCount>& sizes)
{
    std::vector<RegionRecord> regions;
    for (std::size_t i = 0; i < placement.replicas.size(); ++i) {
        RegionRecord region{sizes.at(i), {}};
        for (const std::string& component : placement.replicas[i]) {
            region.replicas.push_back({component, RegionId{draft.new_id()}, new_capability(), false});
        }
        regions.push_back(std::move(region));
    }
    return regions;
}

Status MemoryManager::create(const std::vector<RegionRecord>& regions, Epoch epoch)
{
    for (const RegionRecord& region : regions) {
        for (const ReplicaRecord& replica : region.replicas) {
            const auto created = hub_.call(
                replica.component, CreateRegion{replica.region, region.size, replica.capability, epoch}, kRegionMs);
            if (!created) return created.error();
        }
    }
    return {};
}

Status MemoryManager::remove(const std::string& component, RegionId region)
{
    const auto removed = hub_.call(component, DeleteRegion{region}, kRegionMs);
    if (!removed) return removed.error();
    return {};
}

}  // namespace splitvisor::controller
