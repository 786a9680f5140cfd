#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vstore/files.h"
#include "vstore/volume.h"
#include "vstore/volume_record.h"

namespace splitvisor::vstore {

/// The volumes and images of one sComponent, as sparse files below one directory:
///   lock               held while a store is open: two monitors never share a directory
///   images/NAME.img    raw disk images, put there by the operator
///   volumes/ID.raw     the data
///   volumes/ID.meta    the VolumeRecord; a volume exists when this does
/// A crash at any moment leaves each volume whole or absent; what a half-made or half-deleted one left behind
/// is cleared when the store opens. A volume whose files contradict each other is kept and not served.
///
/// Thread-safe. Commands for one volume wait for each other.
class VolumeStore {
  public:
    struct Options {
        std::string directory;
        /// What the sizes of all volumes may sum up to. Absent: what the file system has free, and the
        /// volumes occupy.
        std::optional<ByteCount> capacity;
    };
    static Result<std::unique_ptr<VolumeStore>> open(const Options& options);

    /// Durable when it returns. Repeating it, also with an older epoch, is no error; kExists where size,
    /// image or capability differ. kNoRoom says how much is free. kNotFound: no such image. The record's
    /// epoch never goes back.
    [[nodiscard]] Status create(const VolumeRecord& wanted);

    /// Ends the volume's sessions first. A volume that is not there is no error.
    [[nodiscard]] Status remove(VolumeId id);

    /// Durable when it returns, and no request of an older epoch takes effect any more. kStale for an older
    /// epoch.
    [[nodiscard]] Status set_epoch(VolumeId id, Epoch epoch);

    /// Nothing where the volume does not exist.
    [[nodiscard]] std::shared_ptr<Volume> find(VolumeId id) const;

    [[nodiscard]] ByteCount capacity() const { return capacity_; }
    /// The sum of the volumes' sizes, whatever they occupy.
    [[nodiscard]] ByteCount used() const;
    [[nodiscard]] std::size_t volume_count() const;
    /// The names of the images, sorted.
    [[nodiscard]] std::vector<std::string> images() const;

  private:
    /// Holds a volume's id for one command. Commands for other volumes go on.
    class Claim;

    VolumeStore(Directory top, Directory images, Directory volumes, Fd lock);
    Status load_volumes();
    Status load_volume(VolumeId id);
    Status set_capacity(const std::optional<ByteCount>& wanted);
    Status reserve(const VolumeRecord& wanted);
    Status make_files(const VolumeRecord& wanted);
    Status fill_file(const Fd& file, const VolumeRecord& wanted);
    Status remove_files(VolumeId id);
    void forget(VolumeId id);
    Status raise_epoch(Volume& volume, Epoch epoch);
    [[nodiscard]] ByteCount used_locked() const;

    const Directory top_;
    const Directory images_directory_;
    const Directory volumes_directory_;
    const Fd lock_;
    ByteCount capacity_{};

    mutable std::mutex mutex_;
    std::condition_variable claim_ended_;
    std::set<VolumeId> claimed_;
    std::map<VolumeId, ByteCount> sizes_;  ///< of all volumes, also those being made and those not served
    std::map<VolumeId, std::shared_ptr<Volume>> served_;
};

}  // namespace splitvisor::vstore
