#pragma once

#include <xxhash.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/mapping.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "ept/userfault.h"
#include "ept/withdrawal.h"
#include "excache/fault_streams.h"
#include "excache/landed_lines.h"
#include "excache/line_budget.h"
#include "excache/line_table.h"

namespace splitvisor::ept {

/// What the page store holds of a line, as far as we know. Written by the evictor when a write-back is acknowledged,
/// read by whoever has claimed the line when it is remote.
struct RemoteCopy {
    Version version{};      ///< zero: nothing is stored
    XXH128_hash_t digest{}; ///< of the content
};

/// What a victim slot holds.
enum class SlotState : std::uint8_t {
    kTravelling,  ///< the only copy, or one whose write-back is not acknowledged: its memory must stay
    kSettled,     ///< a copy of what every replica has
    kGivenBack,   ///< nothing: the page went back to the guest
};

/// Counters that several threads raise; relaxed, for people only.
struct EngineCounters {
    using Counter = std::atomic<std::uint64_t>;
    Counter faults, remote_faults, remote_pages, zero_fills, victim_hits, in_flight_waits;
    Counter ahead_windows, ahead_pages, ahead_reached;
    Counter evicted_clean, evicted_zero, written_back, room_stalls, retries, forgotten, victim_lines, fault_ns_total;

    static void raise(Counter& counter, std::uint64_t by = 1) { counter.fetch_add(by, std::memory_order_relaxed); }
};

/// Everything that the handlers, the evictor and forget() share. Thread-safe part by part, as noted.
struct EngineState {
    EngineState(const EngineOptions& options, Mapping guest_mapping, Mapping landing_slots, Userfault fault_descriptor,
                std::function<void(const Error&)> on_fatal_error);

    [[nodiscard]] std::byte* page(Line line) const { return guest.data() + line.byte_offset(); }
    [[nodiscard]] std::byte* landed_page(std::uint32_t slot) const { return landed_pages.data() + std::size_t{slot} * kPageBytes; }

    /// Takes room for a line; waits for the evictor where there is none. False when the engine stops.
    [[nodiscard]] bool take_room();
    /// Gives room back and lets waiters try.
    void give_room(std::uint32_t lines);
    /// Starts the evictor if lines run short.
    void call_evictor_if_short();

    /// Reports an error after which the guest can't go on; the first one counts.
    void fail(const Error& error);
    void stop();
    [[nodiscard]] bool stopping() const { return stopping_.load(std::memory_order_acquire); }

    /// Says what a thread waits for (empty: nothing any more).
    void set_waiting(const std::string& reason);
    [[nodiscard]] std::string waiting() const;

    /// Waits before a remote call is repeated; returns at once when the engine stops.
    void pause_before_retry();

    /// The evictor sleeps here until lines run short, there is something to drop, or the engine stops.
    void wait_for_work(std::chrono::milliseconds limit);

    EngineOptions options;
    Mapping guest;
    Mapping landed_pages;  ///< one for each slot of `landed`
    Userfault userfault;
    std::unique_ptr<UserfaultReaders> readers;  ///< where the fault handlers wait; set before they start
    excache::LineTable table;
    excache::LineBudget budget;
    excache::AdmissionList admissions;
    excache::FaultStreams streams;
    excache::LandedLines landed;
    std::atomic<std::uint32_t> readers_ahead{0};  ///< handlers that read ahead at this moment
    std::vector<RemoteCopy> remote;
    /// Lines that were forgotten while the store may hold a copy. Set by forget(), taken by the evictor.
    std::vector<std::atomic<std::uint8_t>> drop_wanted;
    std::atomic<std::uint32_t> drops_waiting{0};
    std::vector<std::atomic<SlotState>> slots;
    EngineCounters counters;

  private:
    std::function<void(const Error&)> on_fatal_;
    std::atomic<bool> stopping_{false};
    std::atomic<bool> failed_{false};
    std::atomic<bool> evictor_called_{false};
    std::atomic<std::uint32_t> room_waiters_{0};
    mutable std::mutex mutex_;  ///< guards waiting_for_ and the two conditions; never held across I/O
    std::condition_variable room_changed_;
    std::condition_variable work_arrived_;
    std::string waiting_for_;
};

[[nodiscard]] inline XXH128_hash_t digest_of(const std::byte* page) { return XXH3_128bits(page, kPageBytes); }
[[nodiscard]] bool is_zero_page(const std::byte* page);

/// True where repeating the call can help: the store was not reached, or has no room at the moment.
[[nodiscard]] bool is_worth_repeating(const Error& error);

}  // namespace splitvisor::ept
