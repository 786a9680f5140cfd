#include "controller/gpm/placement.h"

#include <algorithm>
#include <tuple>

#include "base/text.h"

namespace splitvisor::controller {

namespace {

bool has_file(const ProcessorOffer& offer, const std::string& file)
{
    return file.empty() || std::find(offer.kernels.begin(), offer.kernels.end(), file) != offer.kernels.end();
}

/// Empty where the offer will do.
std::string why_not(const ProcessorOffer& offer, const ProcessorRequest& request)
{
    if (!offer.connected) return "not connected";
    if (!has_file(offer, request.kernel)) return "has no kernel '" + request.kernel + "'";
    if (!has_file(offer, request.initrd)) return "has no initrd '" + request.initrd + "'";
    if (offer.free_vcpus < request.vcpus) {
        return std::to_string(offer.free_vcpus) + " vCPUs free, " + std::to_string(request.vcpus) + " needed";
    }
    if (offer.free_memory < request.excache) {
        return format_size(offer.free_memory) + " free for ExCaches, " + format_size(request.excache) + " needed";
    }
    return {};
}

bool is_better(const ProcessorOffer& one, const ProcessorOffer& other)
{
    return std::tie(other.free_memory, other.free_vcpus, one.name) <
           std::tie(one.free_memory, one.free_vcpus, other.name);
}

}  // namespace

ProcessorPlacement place_vnode(const std::vector<ProcessorOffer>& offers, const ProcessorRequest& request)
{
    ProcessorPlacement placement;
    const ProcessorOffer* best = nullptr;
    for (const ProcessorOffer& offer : offers) {
        std::string reason = why_not(offer, request);
        if (!reason.empty()) {
            placement.rejected.push_back({offer.name, std::move(reason)});
        } else if (best == nullptr || is_better(offer, *best)) {
            best = &offer;
        }
    }
    if (best != nullptr) placement.chosen = best->name;
    return placement;
}

}  // namespace splitvisor::controller
