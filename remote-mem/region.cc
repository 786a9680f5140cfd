#include "remote-mem/region.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/crc32c.h"

namespace splitvisor::remote_mem {

namespace {

bool is_zero(std::span<const std::byte> page)
{
    static constexpr std::array<std::byte, kPageBytes> kZeros{};
    return std::memcmp(page.data(), kZeros.data(), kPageBytes) == 0;
}

void count(std::atomic<std::uint64_t>& counter, std::uint64_t more = 1)
{
    counter.fetch_add(more, std::memory_order_relaxed);
}

}  // namespace

/// Holds the lock of one stripe at a time.
class Region::StripeLock {
  public:
    explicit StripeLock(Region& region) : region_{region} {}

    void move_to(std::uint32_t index)
    {
        const auto stripe = stripe_of(index);
        if (lock_.owns_lock() && stripe == stripe_) return;
        lock_ = {};
        lock_ = std::unique_lock{region_.stripes_[stripe]};
        stripe_ = stripe;
    }
    [[nodiscard]] static std::uint32_t stripe_of(std::uint32_t index)
    {
        return index / kPagesPerStripe % kStripes;
    }

  private:
    Region& region_;
    std::uint32_t stripe_ = 0;
    std::unique_lock<std::mutex> lock_;
};

Result<std::shared_ptr<Region>> Region::create(ByteCount size, const Capability& capability, Epoch epoch,
                                               PageCounters& counters)
{
    const auto page_count = size.value() >> kPageShift;
    if (page_count == 0 || size.value() % kPageBytes != 0) {
        return Error{ErrorCode::kInvalid, "the size of a region is a multiple of 4096 bytes and not 0"};
    }
    if (!std::in_range<std::uint32_t>(page_count))
        return Error{ErrorCode::kInvalid, "a region has less than 16 TiB"};
    auto frames = Mapping::anonymous(size);
    if (!frames) return frames.error();
    auto records = Mapping::anonymous(ByteCount{page_count * sizeof(Record)});
    if (!records) return records.error();
    return std::shared_ptr<Region>{new Region{std::move(*frames), std::move(*records), capability, epoch,
                                              static_cast<std::uint32_t>(page_count), counters}};
}

Region::Region(Mapping frames, Mapping records, const Capability& capability, Epoch epoch,
               std::uint32_t page_count, PageCounters& counters)
    : capability_{capability},
      page_count_{page_count},
      counters_{counters},
      epoch_{epoch.value()},
      frames_{std::move(frames)},
      records_{std::move(records)}
{
}

/// Takes as long for a wrong capability as for the right one, so that nobody can guess it byte by byte.
bool Region::has_capability(const Capability& capability) const
{
    std::byte difference{};
    for (std::size_t i = 0; i < capability.size(); ++i) difference |= capability[i] ^ capability_[i];
    return difference == std::byte{};
}

Status Region::admit(const Access& access) const
{
    if (closed_.load()) return Error{ErrorCode::kNotFound, "there is no such region"};
    if (!has_capability(access.capability))
        return Error{ErrorCode::kDenied, "not the capability of this region"};
    const auto epoch = epoch_.load();
    if (access.epoch.value() < epoch) return Error{ErrorCode::kStale, "a newer lease epoch exists"};
    if (access.epoch.value() > epoch)
        return Error{ErrorCode::kUnavailable, "this lease epoch is not known here yet"};
    return {};
}

/// Waits for the requests that run. Those that come later see what was stored before the call.
void Region::fence()
{
    const std::lock_guard lock{access_};
}

Status Region::set_epoch(Epoch epoch)
{
    auto current = epoch_.load();
    do {
        if (epoch.value() < current) return Error{ErrorCode::kStale, "the region has a newer lease epoch"};
    } while (!epoch_.compare_exchange_weak(current, epoch.value()));
    fence();
    return {};
}

void Region::close()
{
    if (closed_.exchange(true)) return;
    const std::lock_guard lock{access_};
    counters_.stored.fetch_sub(stored_pages_.load(), std::memory_order_relaxed);
    frames_.reset();
    records_.reset();
}

Region::Record& Region::record(std::uint32_t index) const
{
    return reinterpret_cast<Record*>(records_.data())[index];
}

std::span<std::byte> Region::frame(std::uint32_t index) const
{
    return frames_.bytes().subspan(std::size_t{index} << kPageShift, kPageBytes);
}

std::uint32_t Region::read(std::span<const std::uint32_t> indices, std::span<ReadEntry> entries,
                           std::span<std::byte> pages)
{
    StripeLock lock{*this};
    std::uint32_t copied = 0;
    std::uint64_t corrupt = 0;
    for (std::size_t i = 0; i < indices.size(); ++i) {
        lock.move_to(indices[i]);
        const auto& found = record(indices[i]);
        entries[i] = {found.version, found.state, 0};
        if (found.state != PageState::kStored) continue;
        const auto into = pages.subspan(std::size_t{copied} << kPageShift, kPageBytes);
        std::memcpy(into.data(), frame(indices[i]).data(), kPageBytes);
        if (crc32c(into) == found.crc) {
            ++copied;
        } else {
            entries[i].state = PageState::kCorrupt;
            ++corrupt;
        }
    }
    count(counters_.read, indices.size());
    if (corrupt > 0) count(counters_.corrupt, corrupt);
    return copied;
}

/// True where the version is not older than the record's, which then has it.
bool Region::take_version(Record& record, std::uint64_t version)
{
    if (version < record.version) return false;
    record.version = version;
    return true;
}

void Region::store_page(std::uint32_t index, std::span<const std::byte> page, bool zero, std::uint32_t crc)
{
    auto& stored = record(index);
    const bool had_frame = stored.state == PageState::kStored;
    if (zero) {
        if (had_frame) release_frames(index, 1);
    } else {
        std::memcpy(frame(index).data(), page.data(), kPageBytes);
        if (!had_frame) {
            count(counters_.stored);
            count(stored_pages_);
        }
    }
    stored.crc = crc;
    stored.state = zero ? PageState::kZero : PageState::kStored;
}

std::uint32_t Region::write(std::span<const WriteEntry> entries, std::span<const std::byte> pages)
{
    StripeLock lock{*this};
    std::uint32_t stale = 0;
    std::uint64_t zeros = 0;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto page = pages.subspan(i << kPageShift, kPageBytes);
        const bool zero = is_zero(page);
        const auto crc = zero ? 0 : crc32c(page);
        lock.move_to(entries[i].index);
        if (!take_version(record(entries[i].index), entries[i].version)) {
            ++stale;
            continue;
        }
        store_page(entries[i].index, page, zero, crc);
        zeros += zero ? 1u : 0u;
    }
    count(counters_.written, entries.size() - stale);
    if (zeros > 0) count(counters_.zero_written, zeros);
    if (stale > 0) count(counters_.stale, stale);
    return stale;
}

std::uint32_t Region::drop(std::span<const DropEntry> entries)
{
    StripeLock lock{*this};
    std::uint32_t stale = 0;
    std::uint32_t run_first = 0;
    std::uint32_t run_count = 0;  // stored neighbours of one stripe whose memory is still to be released
    for (const auto& entry : entries) {
        const bool continues = run_count > 0 && entry.index == run_first + run_count &&
                               StripeLock::stripe_of(entry.index) == StripeLock::stripe_of(run_first);
        if (run_count > 0 && !continues) {
            release_frames(run_first, run_count);
            run_count = 0;
        }
        lock.move_to(entry.index);
        auto& dropped = record(entry.index);
        if (!take_version(dropped, entry.version)) {
            ++stale;
            continue;
        }
        if (dropped.state == PageState::kStored) {
            if (run_count == 0) run_first = entry.index;
            ++run_count;
        }
        dropped.state = PageState::kAbsent;
    }
    if (run_count > 0) release_frames(run_first, run_count);
    count(counters_.dropped, entries.size() - stale);
    if (stale > 0) count(counters_.stale, stale);
    return stale;
}

/// Gives the memory back to the kernel. The caller holds the stripe's lock, so no writer finds its page taken
/// away.
void Region::release_frames(std::uint32_t first, std::uint32_t count)
{
    const int failed = ::madvise(frame(first).data(), std::size_t{count} << kPageShift, MADV_DONTNEED);
    SPLITVISOR_CHECK(failed == 0);
    counters_.stored.fetch_sub(count, std::memory_order_relaxed);
    stored_pages_.fetch_sub(count, std::memory_order_relaxed);
}

}  // namespace splitvisor::remote_mem
