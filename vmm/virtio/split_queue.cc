#include "vmm/virtio/split_queue.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <limits>
#include <optional>

#include "base/log.h"

namespace splitvisor::vmm::virtio {

/// virtio 1.2, section 2.7.5.
struct SplitQueue::Descriptor {
    static constexpr std::uint16_t kNext = 1;
    static constexpr std::uint16_t kWrite = 2;
    static constexpr std::uint16_t kIndirect = 4;

    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
};

namespace {

constexpr std::size_t kDescriptorBytes = 16;
constexpr std::size_t kUsedElementBytes = 8;

// Both index areas begin with 16-bit flags and a 16-bit index (sections 2.7.6 and 2.7.8), then the ring, then the event.
constexpr std::size_t kFlagsOffset = 0;
constexpr std::size_t kIndexOffset = 2;
constexpr std::size_t kRingOffset = 4;
constexpr std::size_t available_event_offset(std::uint16_t size) { return kRingOffset + kUsedElementBytes * size; }
constexpr std::size_t used_event_offset(std::uint16_t size) { return kRingOffset + 2u * size; }

constexpr std::uint16_t kAvailableNoInterrupt = 1;
constexpr std::uint16_t kUsedNoNotify = 1;

/// Section 2.7.5: the bytes of a chain are fewer than 2^32.
constexpr std::uint64_t kMaxChainBytes = std::numeric_limits<std::uint32_t>::max();

/// The ring shared with the driver's CPUs. Every access is one atomic access of its width, so that what was checked is
/// what is used, whatever the driver writes meanwhile. Alignment was checked when the ring was made.
template <typename T>
T ring_load(std::span<std::byte> area, std::size_t offset, std::memory_order order)
{
    return std::atomic_ref<T>{*reinterpret_cast<T*>(area.data() + offset)}.load(order);
}

template <typename T>
void ring_store(std::span<std::byte> area, std::size_t offset, T value, std::memory_order order)
{
    std::atomic_ref<T>{*reinterpret_cast<T*>(area.data() + offset)}.store(value, order);
}

std::uint16_t next_index(std::uint16_t index) { return static_cast<std::uint16_t>(index + 1); }
std::uint16_t distance(std::uint16_t from, std::uint16_t to) { return static_cast<std::uint16_t>(to - from); }

std::optional<std::span<std::byte>> ring_area(const GuestMemory& memory, Gpa start, std::size_t bytes,
                                              std::uint64_t alignment)
{
    if (start.value() % alignment != 0) return std::nullopt;
    return memory.host_range(start, bytes);
}

/// Calls `copy(address, position, length)` for each piece of [offset, offset + length); false where the list ends early.
template <typename Copy>
bool for_each_piece(const std::vector<Segment>& segments, std::uint64_t offset, std::uint64_t length, Copy copy)
{
    std::uint64_t done = 0;
    for (const auto& segment : segments) {
        if (done == length) break;
        if (offset >= segment.length) {
            offset -= segment.length;
            continue;
        }
        const auto piece = std::min(segment.length - offset, length - done);
        if (!copy(segment.address + offset, done, piece)) return false;
        done += piece;
        offset = 0;
    }
    return done == length;
}

}  // namespace

void SegmentList::clear()
{
    segments_.clear();
    bytes_ = 0;
}

void SegmentList::append(Segment segment)
{
    segments_.push_back(segment);
    bytes_ += segment.length;
}

bool SegmentList::read(const GuestMemory& memory, std::uint64_t offset, std::span<std::byte> into) const
{
    return for_each_piece(segments_, offset, into.size(), [&](Gpa from, std::uint64_t position, std::uint64_t length) {
        return memory.read(from, into.subspan(position, length));
    });
}

bool SegmentList::write(const GuestMemory& memory, std::uint64_t offset, std::span<const std::byte> from) const
{
    return for_each_piece(segments_, offset, from.size(), [&](Gpa to, std::uint64_t position, std::uint64_t length) {
        return memory.write(to, from.subspan(position, length));
    });
}

Result<SplitQueue> SplitQueue::create(const GuestMemory& memory, const RingLayout& layout, RingFeatures features)
{
    if (!std::has_single_bit(layout.size) || layout.size > kMaxQueueSize) {
        return Error{ErrorCode::kInvalid, "queue size is no power of two or too large"};
    }
    const auto descriptors = ring_area(memory, layout.descriptors, kDescriptorBytes * layout.size, 16);
    if (!descriptors) return Error{ErrorCode::kInvalid, "descriptor table is misaligned or not in RAM"};
    const auto available = ring_area(memory, layout.available, used_event_offset(layout.size) + 2, 2);
    if (!available) return Error{ErrorCode::kInvalid, "available ring is misaligned or not in RAM"};
    const auto used = ring_area(memory, layout.used, available_event_offset(layout.size) + 2, 4);
    if (!used) return Error{ErrorCode::kInvalid, "used ring is misaligned or not in RAM"};
    return SplitQueue{memory, layout.size, features, *descriptors, *available, *used};
}

SplitQueue::SplitQueue(const GuestMemory& memory, std::uint16_t size, RingFeatures features,
                       std::span<std::byte> descriptors, std::span<std::byte> available, std::span<std::byte> used)
    : memory_{&memory},
      size_{size},
      features_{features},
      descriptors_{descriptors},
      available_{available},
      used_{used}
{
}

std::uint16_t SplitQueue::available_index() const
{
    // Sequentially consistent for enable_notifications(); elsewhere acquire is what matters: the chains behind the
    // index are written before it.
    return ring_load<std::uint16_t>(available_, kIndexOffset, std::memory_order_seq_cst);
}

SplitQueue::Descriptor SplitQueue::descriptor(std::uint16_t index) const
{
    const auto offset = kDescriptorBytes * index;
    const auto address = ring_load<std::uint64_t>(descriptors_, offset, std::memory_order_relaxed);
    const auto rest = ring_load<std::uint64_t>(descriptors_, offset + 8, std::memory_order_relaxed);
    return {.address = address,
            .length = static_cast<std::uint32_t>(rest),
            .flags = static_cast<std::uint16_t>(rest >> 32),
            .next = static_cast<std::uint16_t>(rest >> 48)};
}

PopResult SplitQueue::pop(Chain& chain)
{
    if (broken()) return PopResult::kBroken;
    const auto waiting = distance(next_available_, available_index());
    if (waiting == 0) return PopResult::kEmpty;
    if (waiting > size_) return give_up();

    const auto slot = static_cast<std::uint16_t>(next_available_ & (size_ - 1));
    const auto head = ring_load<std::uint16_t>(available_, kRingOffset + 2u * slot, std::memory_order_relaxed);
    if (head >= size_ || in_flight_[head]) return give_up();

    next_available_ = next_index(next_available_);
    in_flight_.set(head);
    ++in_flight_count_;
    ++counters_.chains;
    chain.head = head;
    chain.readable.clear();
    chain.writable.clear();
    if (walk(chain)) return PopResult::kChain;
    ++counters_.bad_chains;
    push(head, 0);
    return PopResult::kBadChain;
}

PopResult SplitQueue::give_up()
{
    counters_.broken = 1;
    return PopResult::kBroken;
}

bool SplitQueue::walk(Chain& chain) const
{
    auto index = chain.head;
    for (std::uint16_t step = 0; step < size_; ++step) {
        const auto current = descriptor(index);
        // Plain descriptors may precede an indirect one, which must be the last (section 2.7.5.3.2).
        if ((current.flags & Descriptor::kIndirect) != 0) return walk_indirect(current, chain);
        if (!take(current, chain)) return false;
        if ((current.flags & Descriptor::kNext) == 0) return true;
        if (current.next >= size_) return false;
        index = current.next;
    }
    return false;
}

bool SplitQueue::walk_indirect(const Descriptor& table, Chain& chain) const
{
    if (!features_.indirect || (table.flags & Descriptor::kNext) != 0) return false;
    const auto count = table.length / sizeof(Descriptor);
    if (count == 0 || count > kMaxQueueSize || table.length % sizeof(Descriptor) != 0) return false;

    std::array<Descriptor, kMaxQueueSize> copies;
    static_assert(sizeof(Descriptor) == kDescriptorBytes);
    const auto descriptors = std::span{copies}.first(count);
    if (!memory_->read(Gpa{table.address}, std::as_writable_bytes(descriptors))) return false;
    std::size_t index = 0;
    for (std::size_t step = 0; step < count; ++step) {
        const auto& current = descriptors[index];
        if ((current.flags & Descriptor::kIndirect) != 0 || !take(current, chain)) return false;
        if ((current.flags & Descriptor::kNext) == 0) return true;
        if (current.next >= count) return false;
        index = current.next;
    }
    return false;
}

bool SplitQueue::take(const Descriptor& descriptor, Chain& chain) const
{
    const bool writable = (descriptor.flags & Descriptor::kWrite) != 0;
    if (!writable && !chain.writable.segments().empty()) return false;
    if (descriptor.length == 0) return true;
    if (chain.readable.bytes() + chain.writable.bytes() + descriptor.length > kMaxChainBytes) return false;
    if (!memory_->host_range(Gpa{descriptor.address}, descriptor.length)) return false;
    (writable ? chain.writable : chain.readable).append({Gpa{descriptor.address}, descriptor.length});
    return true;
}

void SplitQueue::push(std::uint16_t head, std::uint32_t written)
{
    if (broken()) return;
    SPLITVISOR_CHECK(head < size_ && in_flight_[head]);
    in_flight_.reset(head);
    --in_flight_count_;
    const auto slot = static_cast<std::size_t>(next_used_ & (size_ - 1));
    const auto offset = kRingOffset + kUsedElementBytes * slot;
    ring_store<std::uint32_t>(used_, offset, head, std::memory_order_relaxed);
    ring_store<std::uint32_t>(used_, offset + 4, written, std::memory_order_relaxed);
    next_used_ = next_index(next_used_);
}

bool SplitQueue::publish()
{
    if (broken() || next_used_ == published_) return false;
    const auto before = published_;
    published_ = next_used_;
    // The order of this store and the load below is what keeps an interrupt from getting lost (section 2.7.7.2): either
    // we see the driver's wish, or the driver sees our index.
    ring_store<std::uint16_t>(used_, kIndexOffset, published_, std::memory_order_seq_cst);
    if (!features_.event_index) {
        const auto flags = ring_load<std::uint16_t>(available_, kFlagsOffset, std::memory_order_seq_cst);
        return (flags & kAvailableNoInterrupt) == 0;
    }
    const auto event = ring_load<std::uint16_t>(available_, used_event_offset(size_), std::memory_order_seq_cst);
    return distance(next_index(event), published_) < distance(before, published_);
}

void SplitQueue::disable_notifications()
{
    // With event indices, one that is not moved on asks for nothing.
    if (broken() || features_.event_index) return;
    ring_store<std::uint16_t>(used_, kFlagsOffset, kUsedNoNotify, std::memory_order_relaxed);
}

bool SplitQueue::enable_notifications()
{
    if (broken()) return false;
    if (features_.event_index) {
        ring_store<std::uint16_t>(used_, available_event_offset(size_), next_available_, std::memory_order_seq_cst);
    } else {
        ring_store<std::uint16_t>(used_, kFlagsOffset, 0, std::memory_order_seq_cst);
    }
    return available_index() != next_available_;
}

}  // namespace splitvisor::vmm::virtio
