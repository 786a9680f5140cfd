#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "controller/model/records.h"
#include "controller/store/meta_store.h"

namespace splitvisor::controller {

/// Everything the controller has decided, in memory.
struct Contents {
    std::map<std::string, VnodeRecord> vnodes;
    std::map<std::string, VolumeRecord> volumes;
    std::map<std::string, ComponentRecord> components;
    std::map<std::uint64_t, DeletionRecord> deletions;  ///< by the number of the region or volume
    std::uint64_t last_id = 0;                          ///< of regions and volumes together
    std::uint64_t last_epoch = 0;                       ///< of all vNodes together

    /// The vNode that has the volume, or nullptr.
    [[nodiscard]] const VnodeRecord* user_of(const std::string& volume) const;
    /// What is given away of a component: regions or volumes, also those still to be deleted.
    [[nodiscard]] ByteCount allocated_on(const std::string& component) const;
};

/// The changes of one transaction. They are seen by contents() at once and become real with the transaction.
class Draft {
  public:
    explicit Draft(const Contents& base) : contents_{base} {}

    [[nodiscard]] const Contents& contents() const { return contents_; }
    /// Nullptr where there is none. Changes are made by put().
    [[nodiscard]] const VnodeRecord* vnode(const std::string& name) const;
    [[nodiscard]] const VolumeRecord* volume(const std::string& name) const;

    void put(VnodeRecord record);
    void put(VolumeRecord record);
    void put(ComponentRecord record);
    void put(DeletionRecord record);
    void erase_vnode(const std::string& name);
    void erase_volume(const std::string& name);
    void erase_deletion(std::uint64_t number);
    /// A number that no region and no volume has or had.
    std::uint64_t new_id();
    /// Larger than any epoch that any vNode had: a volume may have belonged to another vNode before.
    Epoch new_epoch();

    /// Puts a deletion for each replica. `counted`: the room is taken until it is done.
    void delete_regions(const std::vector<RegionRecord>& regions, bool counted);

    /// The mComponent has lost all it held: marks its replicas.
    void mark_lost(const std::string& component);

  private:
    friend class Catalog;
    void note(std::string key, std::optional<std::string> value);

    Contents contents_;
    std::vector<Change> changes_;
};

/// The contents, kept in the store: each update is durable before anyone sees it. Thread-safe. Updates are made one
/// after the other; what runs inside must not wait for anything.
class Catalog {
  public:
    /// Reads the store.
    static Result<std::unique_ptr<Catalog>> load(MetaStore& store);

    /// Calls `body(const Contents&)` and returns what it returns.
    template <typename Body>
    auto read(Body&& body) const
    {
        const std::lock_guard lock{mutex_};
        return std::forward<Body>(body)(contents_);
    }

    /// Calls `body(Draft&)`; commits what it drafted unless it returns an error.
    Status update(const std::function<Status(Draft&)>& body);

  private:
    explicit Catalog(MetaStore& store) : store_{store} {}
    Status load_contents();

    MetaStore& store_;
    mutable std::mutex mutex_;
    Contents contents_;
};

}  // namespace splitvisor::controller
