#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "remote-mem/region.h"

namespace splitvisor::remote_mem {

struct StoreStats {
    ByteCount capacity{};
    ByteCount reserved{};  ///< sum of the sizes of all vRegions
    std::uint64_t regions = 0;
    std::uint64_t stored_pages = 0;  ///< pages that take memory now
    std::uint64_t pages_read = 0;
    std::uint64_t pages_written = 0;
    std::uint64_t zero_pages_written = 0;  ///< of these: all zero, hence remembered without memory
    std::uint64_t pages_dropped = 0;
    std::uint64_t stale_pages = 0;    ///< writes and drops that came after newer ones
    std::uint64_t corrupt_pages = 0;  ///< reads that failed the checksum
    std::uint64_t refused = 0;        ///< requests without the right region, capability or epoch
};

/// The pages an mComponent holds: vRegions, sparse, each with its capability and lease epoch.
///
/// Room is reserved when a vRegion is made, for its whole size, so that a write to it never fails for room;
/// memory is taken from the kernel page by page as pages are written, and given back as they are dropped. The
/// records of pages come on top: 16 bytes a page, 0.4 %.
///
/// Thread-safe. Two requests exclude each other only where they touch pages of the same stripe, for the time
/// of copying a few of them. Nothing here does I/O.
///
/// Errors of the data functions: kNotFound unknown region, kDenied wrong capability, kStale older epoch,
/// kUnavailable newer epoch (this component has not heard of it yet), kInvalid an index outside the region;
/// nothing was changed then.
class RegionStore {
  public:
    explicit RegionStore(ByteCount capacity);

    /// Repeating it with the same arguments is no error.
    [[nodiscard]] Status create_region(RegionId id, ByteCount size, const Capability& capability,
                                       Epoch epoch);
    /// When it returns no request to the region is running, and its memory is the kernel's again.
    [[nodiscard]] Status delete_region(RegionId id);
    /// When it returns no request with an older epoch is running or will succeed. kStale: the region's epoch
    /// is newer.
    [[nodiscard]] Status set_epoch(RegionId id, Epoch epoch);

    [[nodiscard]] Status check(const Access& access);

    /// Copies the stored pages one behind the other to `pages`, which has room for as many as there are
    /// indices, and says in `entries` what each index is. Returns the number of pages copied. Each page is
    /// copied as a whole: never half of one write and half of another.
    [[nodiscard]] Result<std::uint32_t> read(const Access& access, std::span<const std::uint32_t> indices,
                                             std::span<ReadEntry> entries, std::span<std::byte> pages);

    /// Stores the pages whose version is not older than what is there. Returns the number of pages that were
    /// too old.
    [[nodiscard]] Result<std::uint32_t> write(const Access& access, std::span<const WriteEntry> entries,
                                              std::span<const std::byte> pages);

    /// Forgets the pages, but for the version: an older write that comes late does not bring them back.
    [[nodiscard]] Result<std::uint32_t> drop(const Access& access, std::span<const DropEntry> entries);

    [[nodiscard]] StoreStats stats() const;

    /// For tests that damage the memory of a page.
    [[nodiscard]] std::shared_ptr<Region> region_for_test(RegionId id) const { return find(id); }

  private:
    [[nodiscard]] std::shared_ptr<Region> find(RegionId id) const;

    /// Runs `work(region)` if `access` allows it and the indices are the region's.
    template <typename Items, typename Work>
    [[nodiscard]] Result<std::uint32_t> with_region(const Access& access, Items items, Work work);

    const ByteCount capacity_;
    mutable std::shared_mutex regions_mutex_;
    PageCounters pages_;  ///< outlives the regions, which count in it
    std::map<RegionId, std::shared_ptr<Region>> regions_;
    std::uint64_t reserved_bytes_ = 0;
    std::atomic<std::uint64_t> refused_{0};
};

}  // namespace splitvisor::remote_mem
