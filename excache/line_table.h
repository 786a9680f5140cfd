#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace splitvisor::excache {

/// Where the content of a line is. The first five are places of rest; the others belong to the thread that claimed the
/// line and last as long as its work.
///
///     kZero    -> kFetching    -> kResident                    fault on a line that was never written
///     kRemote  -> kFetching    -> kResident | kRemote          fault; back again when the fetch was given up
///     kRemote  -> kFetching    -> kLanded                      read ahead of the guest
///     kLanded  -> kFetching    -> kResident                    fault on it, or its slot is needed
///     kVictim  -> kRestoring   -> kResident                    fault on a line that was evicted a moment ago
///     kResident-> kWithdrawing -> kVictim | kZero | kResident  eviction; kResident when the kernel would not let go
///     kVictim  -> kRemote                                      its slot is needed; every replica has the content
///     any place of rest -> kForgetting -> kZero                the guest gave the line back
enum class LineState : std::uint32_t {
    kZero,         ///< reads as zero; nothing of it is kept anywhere
    kRemote,       ///< every replica holds the last content
    kResident,     ///< mapped in the guest
    kVictim,       ///< not mapped; the content is in a victim slot
    kLanded,       ///< not mapped; the content, which is the remote one, is in a landing slot
    kFetching,     ///< claimed by a fault handler: content comes from nowhere (zero) or from the page store
    kRestoring,    ///< claimed by a fault handler: content comes from the victim slot
    kWithdrawing,  ///< claimed by the evictor
    kForgetting,   ///< claimed by whoever forgets it
};

[[nodiscard]] std::string_view to_string(LineState state);

/// The state of every line of a vNode, one atomic word each. Lock-free; any thread.
class LineTable {
  public:
    explicit LineTable(std::uint32_t lines);

    [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(words_.size()); }
    [[nodiscard]] LineState state(Line line) const;

    /// Moves the line from a place of rest to a claimed state; false where it is not in `from` any more.
    [[nodiscard]] bool claim(Line line, LineState from, LineState to);

    /// Ends a claim. True where a fault arrived meanwhile (want): the caller wakes whoever waits on the line, unless
    /// its installation did that already.
    [[nodiscard]] bool release(Line line, LineState to);

    /// Ends a claim for a place where no fault finds the content mapped; false, and the claim goes on, where one waits already.
    [[nodiscard]] bool release_unless_wanted(Line line, LineState to);

    /// Leaves word that a fault waits for the end of claim `during`; false where that claim has ended.
    [[nodiscard]] bool want(Line line, LineState during);

    /// The victim slot of a line in kVictim or kRestoring, the landing slot of one in kLanded. Set while the line is claimed.
    void set_slot(Line line, std::uint32_t slot) { slots_[line.value()].store(slot, std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t slot(Line line) const { return slots_[line.value()].load(std::memory_order_relaxed); }

  private:
    std::vector<std::atomic<std::uint32_t>> words_;
    std::vector<std::atomic<std::uint32_t>> slots_;
};

/// Hands lines that became resident from the fault handlers to the evictor, in order, without a lock and without a
/// bound to run into: each line is in it at most once.
class AdmissionList {
  public:
    explicit AdmissionList(std::uint32_t lines);

    /// Any thread. `was_victim`: the line was given back from a victim slot, so it is in use.
    void push(Line line, bool was_victim);

    /// The evictor only: calls `admit(line, was_victim)` for every line pushed since, oldest first.
    template <typename Admit>
    void drain(Admit&& admit)
    {
        std::uint32_t newest = head_.exchange(kNone, std::memory_order_acquire);
        std::uint32_t oldest = kNone;
        while (newest != kNone) {
            const std::uint32_t next = next_[newest];
            next_[newest] = oldest;
            oldest = newest;
            newest = next;
        }
        while (oldest != kNone) {
            const std::uint32_t next = next_[oldest];
            const std::uint8_t flags = flags_[oldest].exchange(0, std::memory_order_acq_rel);
            admit(Line{oldest}, (flags & kWasVictim) != 0);
            oldest = next;
        }
    }

  private:
    static constexpr std::uint32_t kNone = ~std::uint32_t{0};
    static constexpr std::uint8_t kListed = 1;
    static constexpr std::uint8_t kWasVictim = 2;

    std::atomic<std::uint32_t> head_{kNone};
    std::vector<std::uint32_t> next_;  ///< written by the pusher before the line is reachable, then by drain
    std::vector<std::atomic<std::uint8_t>> flags_;
};

}  // namespace splitvisor::excache
