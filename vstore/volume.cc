#include "vstore/volume.h"

namespace splitvisor::vstore {

static std::string name_of(VolumeId id)
{
    return "volume " + std::to_string(id.value());
}

Status Volume::admit(const RequestHead& head) const
{
    if (removed_.load(std::memory_order_acquire))
        return Error{ErrorCode::kNotFound, name_of(id()) + " is deleted"};
    if (head.volume != id().value() || !same_capability(head.capability, record_.capability)) {
        return Error{ErrorCode::kDenied, "the capability does not allow " + name_of(id())};
    }
    const auto current = epoch().value();
    if (head.epoch < current) {
        return Error{ErrorCode::kStale, "lease epoch " + std::to_string(head.epoch) + " is older than " +
                                            std::to_string(current)};
    }
    if (head.epoch > current) {
        return Error{ErrorCode::kDenied, "lease epoch " + std::to_string(head.epoch) + " was never granted"};
    }
    return {};
}

}  // namespace splitvisor::vstore
