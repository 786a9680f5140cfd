#pragma once

#include <string>

#include "controller/gsm/storage_manager.h"
#include "controller/json/json.h"
#include "controller/model/catalog.h"
#include "controller/vnodes/problem.h"
#include "controller/vnodes/reaper.h"

namespace splitvisor::controller {

/// What users do with volumes. Thread-safe; calls wait for the sComponents.
class VolumeService {
  public:
    VolumeService(Catalog& catalog, ComponentHub& hub, StorageManager& storage, Reaper& reaper)
        : catalog_{catalog}, hub_{hub}, storage_{storage}, reaper_{reaper}
    {
    }

    /// Undoes what an earlier controller left half-created. Call once, before anything else.
    [[nodiscard]] Status recover();

    [[nodiscard]] Json list() const;
    [[nodiscard]] Outcome<Json> show(const std::string& name) const;
    [[nodiscard]] Outcome<Json> create(const Json& body);
    [[nodiscard]] Finished remove(const std::string& name);

  private:
    [[nodiscard]] Outcome<VolumeRecord> reserve(VolumeRecord record);
    [[nodiscard]] Json view(const Contents& contents, const VolumeRecord& volume) const;

    Catalog& catalog_;
    ComponentHub& hub_;
    StorageManager& storage_;
    Reaper& reaper_;
};

}  // namespace splitvisor::controller
