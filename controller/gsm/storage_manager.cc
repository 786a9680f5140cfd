#include "controller/gsm/storage_manager.h"

#include <algorithm>

namespace splitvisor::controller {

namespace {

constexpr std::uint64_t kCreateMs = 600'000;
constexpr std::uint64_t kVolumeMs = 10'000;

Status status_of(const Result<std::string>& result)
{
    if (!result) return result.error();
    return {};
}

}  // namespace

std::vector<StorageOffer> StorageManager::offers(const Contents& contents) const
{
    std::vector<StorageOffer> offers;
    for (const auto& [name, component] : contents.components) {
        if (component.kind != ComponentKind::kStorage) continue;
        StorageOffer offer{name, false, ByteCount{}, {}};
        if (const auto status = hub_.find(name)) {
            const std::uint64_t taken = std::max(status->used.value(), contents.allocated_on(name).value());
            offer.connected = true;
            offer.free = ByteCount{status->capacity.value() > taken ? status->capacity.value() - taken : 0};
            offer.images = status->images;
        }
        offers.push_back(std::move(offer));
    }
    return offers;
}

std::set<std::string> StorageManager::images() const
{
    std::set<std::string> images;
    for (const ComponentStatus& component : hub_.connected()) {
        if (component.kind == ComponentKind::kStorage) images.insert(component.images.begin(), component.images.end());
    }
    return images;
}

Status StorageManager::create(const VolumeRecord& volume)
{
    return status_of(hub_.call(volume.component,
                               CreateVolume{volume.id, volume.size, volume.image, volume.capability, Epoch{}},
                               kCreateMs));
}

Status StorageManager::remove(const std::string& component, VolumeId volume)
{
    return status_of(hub_.call(component, DeleteVolume{volume}, kVolumeMs));
}

Status StorageManager::set_epoch(const VolumeRecord& volume, Epoch epoch)
{
    return status_of(hub_.call(volume.component, SetVolumeEpoch{volume.id, epoch}, kVolumeMs));
}

}  // namespace splitvisor::controller
