#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest_memory.h"

namespace splitvisor::vmm::virtio {

/// The largest queue any device of ours offers, and the longest chain it walks, indirect table included.
inline constexpr std::uint16_t kMaxQueueSize = 256;

/// Where a driver has put the three areas of a split virtqueue (virtio 1.2, section 2.7).
struct RingLayout {
    std::uint16_t size = 0;  ///< descriptors; a power of two
    Gpa descriptors;         ///< descriptor table, aligned to 16
    Gpa available;           ///< driver area, aligned to 2
    Gpa used;                ///< device area, aligned to 4
};

/// The ring features both sides agreed on.
struct RingFeatures {
    bool indirect = false;     ///< VIRTIO_F_INDIRECT_DESC
    bool event_index = false;  ///< VIRTIO_F_EVENT_IDX
};

/// A piece of guest RAM, checked to lie in it.
struct Segment {
    Gpa address;
    std::uint32_t length = 0;
};

/// The readable or the writable half of a chain: pieces of RAM that read or write like one run of bytes.
class SegmentList {
  public:
    void clear();
    void append(Segment segment);

    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
    [[nodiscard]] const std::vector<Segment>& segments() const { return segments_; }

    /// Copies [offset, offset + into.size()) out of the pieces; false, with nothing promised about `into`, where the
    /// list is shorter. May wait for remote pages.
    [[nodiscard]] bool read(const GuestMemory& memory, std::uint64_t offset, std::span<std::byte> into) const;
    [[nodiscard]] bool write(const GuestMemory& memory, std::uint64_t offset, std::span<const std::byte> from) const;

  private:
    std::vector<Segment> segments_;
    std::uint64_t bytes_ = 0;
};

/// One request of the driver: what the device may read, then what it may write. Reused from pop to pop.
struct Chain {
    std::uint16_t head = 0;
    SegmentList readable;
    SegmentList writable;
};

enum class PopResult {
    kChain,     ///< a valid chain was taken
    kEmpty,     ///< the driver has made nothing more available
    kBadChain,  ///< a malformed chain was taken and returned with length 0; go on
    kBroken,    ///< the ring itself can't be trusted any more: stop, and tell the driver that it must reset
};

struct QueueCounters {
    std::uint64_t chains = 0;
    std::uint64_t bad_chains = 0;
    std::uint64_t broken = 0;  ///< 1 once the ring was given up
};

/// The device's side of a split virtqueue whose driver is not trusted. Every descriptor is copied once and the copy is
/// checked; the walk is bounded; a head that is still in flight can't be taken again, so no more than size() chains are
/// ever in flight. Used by one thread at a time.
///
/// A batch: take chains with pop(), give each back with push(), then publish() once and interrupt if it says so.
class SplitQueue {
  public:
    /// Errors: kInvalid where the size is not a power of two up to kMaxQueueSize, or an area is misaligned or not wholly
    /// in one range of RAM.
    static Result<SplitQueue> create(const GuestMemory& memory, const RingLayout& layout, RingFeatures features);

    [[nodiscard]] std::uint16_t size() const { return size_; }
    [[nodiscard]] const GuestMemory& memory() const { return *memory_; }
    [[nodiscard]] bool broken() const { return counters_.broken != 0; }
    [[nodiscard]] std::uint16_t in_flight() const { return in_flight_count_; }
    [[nodiscard]] const QueueCounters& counters() const { return counters_; }

    [[nodiscard]] PopResult pop(Chain& chain);

    /// Returns a popped chain, in any order, with the number of bytes written to it from the first writable one on.
    /// The driver sees it at the next publish().
    void push(std::uint16_t head, std::uint32_t written);

    /// Shows the driver all that was pushed; true where it asked to be interrupted for it.
    [[nodiscard]] bool publish();

    /// Asks the driver not to ring the doorbell; a hint.
    void disable_notifications();
    /// Asks for the doorbell again. True where chains came in meanwhile, for which no doorbell will ring: look again.
    [[nodiscard]] bool enable_notifications();

  private:
    struct Descriptor;

    SplitQueue(const GuestMemory& memory, std::uint16_t size, RingFeatures features, std::span<std::byte> descriptors,
               std::span<std::byte> available, std::span<std::byte> used);

    [[nodiscard]] std::uint16_t available_index() const;
    [[nodiscard]] Descriptor descriptor(std::uint16_t index) const;
    [[nodiscard]] bool walk(Chain& chain) const;
    [[nodiscard]] bool walk_indirect(const Descriptor& table, Chain& chain) const;
    [[nodiscard]] bool take(const Descriptor& descriptor, Chain& chain) const;
    PopResult give_up();

    const GuestMemory* memory_;
    std::uint16_t size_;
    RingFeatures features_;
    std::span<std::byte> descriptors_;
    std::span<std::byte> available_;
    std::span<std::byte> used_;

    std::uint16_t next_available_ = 0;  ///< index of the next chain to take, wrapping at 2^16
    std::uint16_t next_used_ = 0;       ///< index of the next used element to fill
    std::uint16_t published_ = 0;       ///< the used index the driver sees
    std::uint16_t in_flight_count_ = 0;
    std::bitset<kMaxQueueSize> in_flight_;
    QueueCounters counters_;
};

}  // namespace splitvisor::vmm::virtio
