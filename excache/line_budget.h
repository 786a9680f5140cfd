#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace splitvisor::excache {

/// How many lines of the ExCache are in use. The ExCache is divided once, at start, into resident lines, victim slots,
/// and a small reserve, so that all together never exceed it:
///   - a line that is given back from a slot whose content is acknowledged takes the slot's memory along;
///   - one that is given back while its write-back travels exists twice for so long; at most kBatch of those are under
///     way, and for them is the reserve. So a victim line can always be given back, with no line free at all.
/// Lock-free; any thread.
class LineBudget {
  public:
    /// The most lines the evictor withdraws in one round.
    static constexpr std::uint32_t kBatch = 64;

    /// `capacity` lines of ExCache for a vNode of `lines`. Where all fits nothing is kept back for victims.
    LineBudget(std::uint32_t lines, std::uint32_t capacity)
        : slots_{capacity >= lines ? 0 : std::clamp(capacity / 8, kBatch, std::uint32_t{65536})},
          limit_{capacity >= lines ? lines : capacity - slots_ - kBatch},
          capacity_{capacity >= lines ? lines : capacity},
          low_{std::clamp(limit_ / 32, std::uint32_t{16}, std::uint32_t{4096})}
    {
    }

    [[nodiscard]] std::uint32_t capacity() const { return capacity_; }
    [[nodiscard]] std::uint32_t limit() const { return limit_; }
    [[nodiscard]] std::uint32_t victim_slots() const { return slots_; }
    [[nodiscard]] bool evicts() const { return slots_ != 0; }

    /// Takes room for `lines` more; false where there is not so much.
    [[nodiscard]] bool take(std::uint32_t lines)
    {
        const auto before = used_.fetch_add(lines, std::memory_order_acq_rel);
        if (before + lines <= limit_) {
            note_peak();
            return true;
        }
        used_.fetch_sub(lines, std::memory_order_acq_rel);
        return false;
    }
    /// Takes room for a victim line that is given back.
    void take_for_victim()
    {
        used_.fetch_add(1, std::memory_order_acq_rel);
        note_peak();
    }
    void give(std::uint32_t lines) { used_.fetch_sub(lines, std::memory_order_acq_rel); }

    /// Slots that hold a page.
    void fill_slots(std::uint32_t slots)
    {
        filled_slots_.fetch_add(slots, std::memory_order_acq_rel);
        note_peak();
    }
    void empty_slots(std::uint32_t slots) { filled_slots_.fetch_sub(slots, std::memory_order_acq_rel); }

    [[nodiscard]] std::uint32_t used() const { return used_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t peak() const { return peak_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t available() const { return limit_ - std::min(used(), limit_); }

    /// Whether lines that nobody has asked for yet may take room: some is kept for faults while the evictor works.
    [[nodiscard]] bool has_spare() const { return available() > (evicts() ? low_ / 2 : 0); }

    /// More room than an evictor at work ever leaves: the ExCache was not full yet, or much was forgotten.
    [[nodiscard]] bool plenty() const { return !evicts() || available() > 4 * low_ + kBatch; }

    /// Below the low watermark the evictor starts; it stops at the high one.
    [[nodiscard]] bool below_low() const { return evicts() && available() < low_; }
    [[nodiscard]] bool below_high() const { return evicts() && available() < 2 * low_; }

  private:
    void note_peak()
    {
        const auto held = std::min(used(), capacity_) + filled_slots_.load(std::memory_order_relaxed);
        auto peak = peak_.load(std::memory_order_relaxed);
        while (held > peak && !peak_.compare_exchange_weak(peak, held, std::memory_order_relaxed)) {
        }
    }

    std::uint32_t slots_;
    std::uint32_t limit_;
    std::uint32_t capacity_;
    std::uint32_t low_;
    std::atomic<std::uint32_t> used_{0};
    std::atomic<std::uint32_t> filled_slots_{0};
    std::atomic<std::uint32_t> peak_{0};
};

}  // namespace splitvisor::excache
