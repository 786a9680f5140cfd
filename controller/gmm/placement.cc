#include "controller/gmm/placement.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace splitvisor::controller {

namespace {

bool contains(const std::vector<std::string>& names, const std::string& name)
{
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::string why_not(const MemoryOffer& offer, const RegionRequest& request, const std::vector<std::string>& taken)
{
    if (contains(taken, offer.name)) return "takes one copy of the vRegion, another mComponent must take the next";
    if (!offer.connected) return "not connected";
    return format_size(offer.free) + " left, " + format_size(request.size) + " needed for each vRegion";
}

bool can_take(const MemoryOffer& offer, const RegionRequest& request, const std::vector<std::string>& taken)
{
    return offer.connected && offer.free >= request.size && !contains(taken, offer.name);
}

MemoryOffer* roomiest(std::vector<MemoryOffer>& offers, const RegionRequest& request,
                      const std::vector<std::string>& taken)
{
    MemoryOffer* best = nullptr;
    for (MemoryOffer& offer : offers) {
        if (!can_take(offer, request, taken)) continue;
        if (best == nullptr || offer.free > best->free || (offer.free == best->free && offer.name < best->name)) {
            best = &offer;
        }
    }
    return best;
}

}  // namespace

MemoryPlacement place_regions(std::vector<MemoryOffer> offers, const std::vector<RegionRequest>& requests,
                              std::size_t copies)
{
    MemoryPlacement placement;
    for (const RegionRequest& request : requests) {
        std::vector<std::string> taken = request.kept;
        while (taken.size() < copies) {
            MemoryOffer* best = roomiest(offers, request, taken);
            if (best == nullptr) {
                for (const MemoryOffer& offer : offers) {
                    placement.rejected.push_back({offer.name, why_not(offer, request, taken)});
                }
                placement.replicas.clear();
                return placement;
            }
            best->free = best->free - request.size;
            taken.push_back(best->name);
        }
        placement.replicas.push_back(std::move(taken));
    }
    placement.possible = true;
    return placement;
}

std::vector<ByteCount> divide_memory(ByteCount memory, ByteCount region_size)
{
    std::vector<ByteCount> sizes;
    for (std::uint64_t done = 0; done < memory.value(); done += region_size.value()) {
        sizes.push_back(ByteCount{std::min(region_size.value(), memory.value() - done)});
    }
    return sizes;
}

}  // namespace splitvisor::controller
