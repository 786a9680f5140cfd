#pragma once

#include <fcntl.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "base/units.h"
#include "vstore/files.h"
#include "vstore/protocol.h"
#include "vstore/session_gate.h"
#include "vstore/volume_record.h"

namespace splitvisor::vstore {

/// One volume as the sessions that serve it see it. Thread-safe. Outlives its deletion while a session holds
/// it.
class Volume {
  public:
    Volume(const Directory& directory, VolumeRecord record)
        : directory_{directory}, record_{std::move(record)}, epoch_{record_.epoch.value()}
    {
    }

    [[nodiscard]] VolumeId id() const { return record_.id; }
    [[nodiscard]] ByteCount size() const { return record_.size; }
    [[nodiscard]] Epoch epoch() const { return Epoch{epoch_.load(std::memory_order_acquire)}; }
    [[nodiscard]] SessionGate& gate() { return gate_; }

    /// What I3 and I7 ask of each request. kDenied: another capability, or an epoch nobody has granted yet.
    /// kStale: an older epoch. kNotFound: deleted.
    [[nodiscard]] Status admit(const RequestHead& head) const;

    [[nodiscard]] Result<Fd> open_file() const { return directory_.open_file(file_name(id()), O_RDWR); }

    /// Once a sync has failed, what it should have made durable may be lost while later syncs succeed: from
    /// then on no sync of this volume may succeed until the monitor starts anew.
    void note_sync_failure() { sync_failed_.store(true, std::memory_order_relaxed); }
    [[nodiscard]] bool sync_failed() const { return sync_failed_.load(std::memory_order_relaxed); }

    static std::string file_name(VolumeId id) { return std::to_string(id.value()) + ".raw"; }
    static std::string record_name(VolumeId id) { return std::to_string(id.value()) + ".meta"; }

  private:
    friend class VolumeStore;

    const Directory& directory_;
    const VolumeRecord record_;  ///< but for the epoch
    std::atomic<std::uint64_t> epoch_;
    bool old_epoch_inside_ = false;  ///< the store's, under the volume's claim
    std::atomic<bool> removed_{false};
    std::atomic<bool> sync_failed_{false};
    SessionGate gate_;
};

}  // namespace splitvisor::vstore
