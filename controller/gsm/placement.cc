#include "controller/gsm/placement.h"

#include <algorithm>

#include "base/text.h"

namespace splitvisor::controller {

namespace {

std::string why_not(const StorageOffer& offer, ByteCount size, const std::string& image)
{
    if (!offer.connected) return "not connected";
    if (!image.empty() && std::find(offer.images.begin(), offer.images.end(), image) == offer.images.end()) {
        return "has no image '" + image + "'";
    }
    if (offer.free < size) return format_size(offer.free) + " free, " + format_size(size) + " needed";
    return {};
}

}  // namespace

StoragePlacement place_volume(const std::vector<StorageOffer>& offers, ByteCount size, const std::string& image)
{
    StoragePlacement placement;
    const StorageOffer* best = nullptr;
    for (const StorageOffer& offer : offers) {
        std::string reason = why_not(offer, size, image);
        if (!reason.empty()) {
            placement.rejected.push_back({offer.name, std::move(reason)});
        } else if (best == nullptr || offer.free > best->free ||
                   (offer.free == best->free && offer.name < best->name)) {
            best = &offer;
        }
    }
    if (best != nullptr) placement.chosen = best->name;
    return placement;
}

}  // namespace splitvisor::controller
