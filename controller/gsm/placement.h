#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "controller/model/rejection.h"

namespace splitvisor::controller {

/// What an sComponent has left.
struct StorageOffer {
    std::string name;
    bool connected = false;
    ByteCount free;
    std::vector<std::string> images;
};

struct StoragePlacement {
    std::optional<std::string> chosen;
    std::vector<Rejection> rejected;
};

/// The connected sComponent with the most room among those that have the image (empty: any); of equals the first by
/// name.
[[nodiscard]] StoragePlacement place_volume(const std::vector<StorageOffer>& offers, ByteCount size,
                                            const std::string& image);

}  // namespace splitvisor::controller
