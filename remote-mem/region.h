#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>

#include "base/mapping.h"
#include "base/result.h"
#include "base/units.h"
#include "remote-mem/protocol.h"

namespace splitvisor::remote_mem {

/// Who asks, for what.
struct Access {
    RegionId region;
    Capability capability{};
    Epoch epoch;
};

/// What happened to pages, counted by all regions of a store together. Relaxed: for statistics only.
struct PageCounters {
    std::atomic<std::uint64_t> stored{0};  ///< gauge: pages that take memory now
    std::atomic<std::uint64_t> read{0};
    std::atomic<std::uint64_t> written{0};
    std::atomic<std::uint64_t> zero_written{0};
    std::atomic<std::uint64_t> dropped{0};
    std::atomic<std::uint64_t> stale{0};
    std::atomic<std::uint64_t> corrupt{0};
};

/// One vRegion of an mComponent. Thread-safe; RegionStore says what the functions promise.
///
/// `access_` is held shared by each request for as long as it copies, and taken exclusively by fence(): this
/// is how a new epoch waits for what an older one has begun. The stripe locks order the requests that touch
/// one page.
class Region {
  public:
    /// `size`: a multiple of the page size. The counters outlive the region.
    static Result<std::shared_ptr<Region>> create(ByteCount size, const Capability& capability, Epoch epoch,
                                                  PageCounters& counters);
    ~Region() { close(); }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;

    [[nodiscard]] ByteCount size() const { return ByteCount{std::uint64_t{page_count_} << kPageShift}; }
    [[nodiscard]] std::uint32_t page_count() const { return page_count_; }
    [[nodiscard]] Epoch epoch() const { return Epoch{epoch_.load()}; }
    [[nodiscard]] bool has_capability(const Capability& capability) const;

    [[nodiscard]] Status set_epoch(Epoch epoch);
    /// Refuses all requests from now on, waits for those that run, and gives the memory back.
    void close();

    /// Runs `work`, a function that returns a number, if `access` allows it, and keeps fences waiting
    /// meanwhile.
    template <typename Work>
    [[nodiscard]] Result<std::uint32_t> run(const Access& access, Work work)
    {
        // Asked twice: what is refused must not keep a fence waiting, and what runs must have been allowed
        // under the lock.
        SPLITVISOR_TRY(admit(access));
        const std::shared_lock lock{access_};
        SPLITVISOR_TRY(admit(access));
        return work();
    }

    // Only within run(), with indices below page_count().
    [[nodiscard]] std::uint32_t read(std::span<const std::uint32_t> indices, std::span<ReadEntry> entries,
                                     std::span<std::byte> pages);
    [[nodiscard]] std::uint32_t write(std::span<const WriteEntry> entries, std::span<const std::byte> pages);
    [[nodiscard]] std::uint32_t drop(std::span<const DropEntry> entries);

    /// The memory of a page, for tests that damage it.
    [[nodiscard]] std::span<std::byte> frame(std::uint32_t index) const;

  private:
    struct Record {
        std::uint64_t version;
        std::uint32_t crc;  ///< crc32c of the page where it is kStored
        PageState state;
    };
    static_assert(sizeof(Record) == 16);

    class StripeLock;
    /// Neighbours share a stripe: a fault-around read takes one or two locks, and a run of drops one madvise.
    static constexpr std::uint32_t kPagesPerStripe = 16;
    static constexpr std::uint32_t kStripes = 256;

    Region(Mapping frames, Mapping records, const Capability& capability, Epoch epoch,
           std::uint32_t page_count, PageCounters& counters);

    [[nodiscard]] Status admit(const Access& access) const;
    void fence();
    [[nodiscard]] Record& record(std::uint32_t index) const;
    [[nodiscard]] bool take_version(Record& record, std::uint64_t version);
    void store_page(std::uint32_t index, std::span<const std::byte> page, bool zero, std::uint32_t crc);
    void release_frames(std::uint32_t first, std::uint32_t count);

    const Capability capability_;
    const std::uint32_t page_count_;
    PageCounters& counters_;
    std::atomic<std::uint64_t> epoch_;
    std::atomic<bool> closed_{false};
    std::atomic<std::uint64_t> stored_pages_{0};
    std::shared_mutex access_;
    std::array<std::mutex, kStripes> stripes_;
    Mapping frames_;   ///< the kernel provides a page when it is first written
    Mapping records_;  ///< page_count_ Records; all zero is "absent, version 0"
};

}  // namespace splitvisor::remote_mem
