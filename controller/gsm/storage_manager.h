#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "controller/components/component_hub.h"
#include "controller/gsm/placement.h"
#include "controller/model/catalog.h"

namespace splitvisor::controller {

/// The global storage manager: which sComponent holds which volume, and the commands that go there. Thread-safe.
class StorageManager {
  public:
    explicit StorageManager(ComponentHub& hub) : hub_{hub} {}

    /// Every sComponent that was ever enrolled.
    [[nodiscard]] std::vector<StorageOffer> offers(const Contents& contents) const;
    /// Of all connected sComponents.
    [[nodiscard]] std::set<std::string> images() const;

    /// Copying an image takes its time: the deadline is minutes.
    [[nodiscard]] Status create(const VolumeRecord& volume);
    [[nodiscard]] Status remove(const std::string& component, VolumeId volume);
    /// From now on only the VMM of this epoch may use the volume.
    [[nodiscard]] Status set_epoch(const VolumeRecord& volume, Epoch epoch);

  private:
    ComponentHub& hub_;
};

}  // namespace splitvisor::controller
