#include "remote-mem/store.h"

#include <mutex>

#include "base/log.h"
#include "base/text.h"

namespace splitvisor::remote_mem {

namespace {

/// Bounds what records and locks can take beside the capacity.
constexpr std::size_t kMaxRegions = 65'536;

Error unknown_region()
{
    return Error{ErrorCode::kNotFound, "there is no such region"};
}

std::uint32_t index_of(std::uint32_t index)
{
    return index;
}
std::uint32_t index_of(const WriteEntry& entry)
{
    return entry.index;
}

Status check_repetition(const Region& region, ByteCount size, const Capability& capability, Epoch epoch)
{
    if (region.size() == size && region.has_capability(capability) && region.epoch() == epoch) return {};
    return Error{ErrorCode::kExists, "the region exists with another size, capability or lease epoch"};
}

}  // namespace

RegionStore::RegionStore(ByteCount capacity) : capacity_{capacity} {}

std::shared_ptr<Region> RegionStore::find(RegionId id) const
{
    const std::shared_lock lock{regions_mutex_};
    const auto found = regions_.find(id);
    return found == regions_.end() ? nullptr : found->second;
}

Status RegionStore::create_region(RegionId id, ByteCount size, const Capability& capability, Epoch epoch)
{
    const std::lock_guard lock{regions_mutex_};
    const auto found = regions_.find(id);
    if (found != regions_.end()) return check_repetition(*found->second, size, capability, epoch);
    const auto free = capacity_.value() - reserved_bytes_;
    if (size.value() > free) {
        return Error{ErrorCode::kNoRoom,
                     format_size(size) + " asked for, " + format_size(ByteCount{free}) + " free"};
    }
    if (regions_.size() >= kMaxRegions) return Error{ErrorCode::kNoRoom, "there are too many regions"};
    auto region = Region::create(size, capability, epoch, pages_);
    if (!region) return region.error();
    regions_.emplace(id, std::move(*region));
    reserved_bytes_ += size.value();
    return {};
}

Status RegionStore::delete_region(RegionId id)
{
    const auto region = find(id);
    if (region == nullptr) return {};
    // The room becomes free only after the memory did: capacity is never exceeded, not even for a moment.
    region->close();
    const std::lock_guard lock{regions_mutex_};
    const auto found = regions_.find(id);
    if (found == regions_.end() || found->second != region) return {};
    reserved_bytes_ -= region->size().value();
    regions_.erase(found);
    return {};
}

Status RegionStore::set_epoch(RegionId id, Epoch epoch)
{
    const auto region = find(id);
    if (region == nullptr) return unknown_region();
    return region->set_epoch(epoch);
}

template <typename Items, typename Work>
Result<std::uint32_t> RegionStore::with_region(const Access& access, Items items, Work work)
{
    const auto region = find(access.region);
    if (region == nullptr) {
        refused_.fetch_add(1, std::memory_order_relaxed);
        return unknown_region();
    }
    const auto result = region->run(access, [&]() -> Result<std::uint32_t> {
        for (const auto& item : items) {
            if (index_of(item) >= region->page_count()) {
                return Error{ErrorCode::kInvalid, "a page outside the region"};
            }
        }
        return work(*region);
    });
    if (!result) refused_.fetch_add(1, std::memory_order_relaxed);
    return result;
}

Status RegionStore::check(const Access& access)
{
    const auto checked = with_region(access, std::span<const std::uint32_t>{}, [](Region&) { return 0u; });
    return checked ? Status{} : checked.error();
}

Result<std::uint32_t> RegionStore::read(const Access& access, std::span<const std::uint32_t> indices,
                                        std::span<ReadEntry> entries, std::span<std::byte> pages)
{
    SPLITVISOR_CHECK(entries.size() == indices.size() && pages.size() >= indices.size() * kPageBytes);
    return with_region(access, indices, [&](Region& region) { return region.read(indices, entries, pages); });
}

Result<std::uint32_t> RegionStore::write(const Access& access, std::span<const WriteEntry> entries,
                                         std::span<const std::byte> pages)
{
    SPLITVISOR_CHECK(pages.size() == entries.size() * kPageBytes);
    return with_region(access, entries, [&](Region& region) { return region.write(entries, pages); });
}

Result<std::uint32_t> RegionStore::drop(const Access& access, std::span<const DropEntry> entries)
{
    return with_region(access, entries, [&](Region& region) { return region.drop(entries); });
}

StoreStats RegionStore::stats() const
{
    const auto value = [](const std::atomic<std::uint64_t>& counter) {
        return counter.load(std::memory_order_relaxed);
    };
    StoreStats stats{
        .capacity = capacity_,
        .stored_pages = value(pages_.stored),
        .pages_read = value(pages_.read),
        .pages_written = value(pages_.written),
        .zero_pages_written = value(pages_.zero_written),
        .pages_dropped = value(pages_.dropped),
        .stale_pages = value(pages_.stale),
        .corrupt_pages = value(pages_.corrupt),
        .refused = value(refused_),
    };
    const std::shared_lock lock{regions_mutex_};
    stats.reserved = ByteCount{reserved_bytes_};
    stats.regions = regions_.size();
    return stats;
}

}  // namespace splitvisor::remote_mem
