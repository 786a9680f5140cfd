#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/units.h"

namespace splitvisor::excache {

/// Which resident line goes next. S3-FIFO (Yang et al., SOSP 2023) with victim lines in the place of reference bits:
/// a fault says that a line was brought, not that it is used, so a line first waits in a small queue; if it is wanted
/// back while it lies in a victim slot, or soon after (a ghost), it enters the main queue and survives scans there.
///
/// Owned by the evictor thread. Every line is in at most one queue; entries of lines that went another way (forgotten)
/// stay until they are picked, and the caller finds them not resident.
class EvictionPolicy {
  public:
    /// `lines` of the vNode, of which at most `capacity` are resident.
    EvictionPolicy(std::uint32_t lines, std::uint32_t capacity);

    /// A line became resident. `was_victim`: it came back from a victim slot.
    void admit(Line line, bool was_victim);

    /// The line to evict next, which leaves its queue. Nothing where no line is known.
    [[nodiscard]] std::optional<Line> pick();

    /// A picked line was really evicted: remember it as a ghost.
    void evicted(Line line);

    [[nodiscard]] std::uint32_t known() const { return small_.count + main_.count; }

  private:
    enum class Place : std::uint8_t { kNowhere, kSmall, kMain };

    struct Queue {
        explicit Queue(std::uint32_t lines) : ring(lines) {}
        void push(Line line);
        Line pop();
        std::vector<std::uint32_t> ring;
        std::uint32_t head = 0;
        std::uint32_t count = 0;
    };

    std::optional<Line> pick_from_main();

    Queue small_;
    Queue main_;
    std::uint32_t small_target_;
    std::uint32_t ghost_window_;
    std::uint32_t evictions_ = 0;
    std::vector<Place> places_;
    std::vector<std::uint8_t> uses_;          ///< main queue: passes that remain, at most kMaxUses
    std::vector<std::uint32_t> evicted_at_;   ///< eviction count at which the line left; 0 for never
};

}  // namespace splitvisor::excache
