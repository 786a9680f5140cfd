#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "remote-mem/client.h"

namespace splitvisor::remote_mem {

/// A set of replicas of one vRegion: bit i is the i-th.
using ReplicaMask = std::uint32_t;

/// Where the pages of a vNode are, and which replicas still count. Shared by all sessions; thread-safe.
///
/// Why no reader sees an old page although sessions use connections of their own: a write returns only when
/// each replica either has acknowledged it or is not in `live` any more, and a read asks only a replica that
/// it finds in `live` when it sends. So a replica that missed a write left `live` before that write returned,
/// and a read that begins later does not ask it, even if the mComponent is well and only one session's
/// connection to it was cut. Bits never come back.
class Placement {
  public:
    struct Copy {
        std::uint32_t component;  ///< index into components()
        RegionId region;
        Capability capability;
    };
    struct Component {
        std::string name;
        fabric::Endpoint endpoint;
    };
    struct Location {
        std::uint32_t region;  ///< index
        std::uint32_t page;    ///< within the region
    };
    struct Counters {
        std::atomic<std::uint64_t> requests{0};
        std::atomic<std::uint64_t> pages_read{0};
        std::atomic<std::uint64_t> pages_written{0};
        std::atomic<std::uint64_t> pages_dropped{0};
        std::atomic<std::uint64_t> stale_pages{0};
        std::atomic<std::uint64_t> connects{0};
        std::atomic<std::uint64_t> failures{0};
        std::atomic<std::uint64_t> corrupt_pages{0};
    };

    static Result<std::unique_ptr<Placement>> create(const RemoteMemoryOptions& options);

    [[nodiscard]] const std::vector<Component>& components() const { return components_; }
    [[nodiscard]] std::uint32_t region_count() const { return static_cast<std::uint32_t>(regions_.size()); }
    [[nodiscard]] const std::vector<Copy>& copies(std::uint32_t region) const
    {
        return regions_[region].copies;
    }
    [[nodiscard]] std::optional<Location> locate(Line line) const;
    [[nodiscard]] Epoch epoch() const { return epoch_; }
    [[nodiscard]] std::uint64_t patience_ms() const { return patience_ms_; }

    /// Never empty.
    [[nodiscard]] ReplicaMask live(std::uint32_t region) const { return regions_[region].live.load(); }

    /// The mComponent has forgotten the region. False where it is the last live replica: then the content is
    /// lost.
    [[nodiscard]] bool give_up(std::uint32_t region, std::uint32_t replica, const Error& reason);

    /// A write was acknowledged by exactly these. Gives the other replicas up; false, with nothing given up,
    /// where no live replica is among those that acknowledged. One atomic step: two sessions that miss
    /// different replicas cannot give up both.
    [[nodiscard]] bool settle(std::uint32_t region, ReplicaMask acknowledged);

    [[nodiscard]] std::vector<LostReplica> lost() const;
    [[nodiscard]] Counters& counters() { return counters_; }

  private:
    struct Region {
        std::uint32_t first_line = 0;
        std::uint32_t page_count = 0;
        std::vector<Copy> copies;
        std::atomic<ReplicaMask> live{0};
    };

    Placement(Epoch epoch, std::uint64_t patience_ms) : epoch_{epoch}, patience_ms_{patience_ms} {}
    [[nodiscard]] Status add_region(const RegionOptions& options);
    [[nodiscard]] std::uint32_t component_index(const Replica& replica);
    void report_lost(const Region& region, ReplicaMask lost, std::string_view reason) const;

    const Epoch epoch_;
    const std::uint64_t patience_ms_;
    std::vector<Component> components_;
    std::deque<Region> regions_;  ///< a deque, since atomics do not move
    Counters counters_;
};

}  // namespace splitvisor::remote_mem
