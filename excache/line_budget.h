#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace splitvisor::excache {

/// How many lines may be resident, and how many are. The ExCache is divided once, at start, into resident lines and
/// victim slots, so that both together never exceed it. Lock-free; any thread.
class LineBudget {
  public:
    /// `capacity` lines of ExCache for a vNode of `lines`. Where all fits nothing is kept back for victims.
    LineBudget(std::uint32_t lines, std::uint32_t capacity)
        : slots_{capacity >= lines ? 0 : std::clamp(capacity / 8, std::uint32_t{64}, std::uint32_t{65536})},
          limit_{capacity >= lines ? lines : capacity - slots_},
          low_{std::clamp(limit_ / 32, std::uint32_t{16}, std::uint32_t{4096})}
    {
    }

    [[nodiscard]] std::uint32_t limit() const { return limit_; }
    [[nodiscard]] std::uint32_t victim_slots() const { return slots_; }
    [[nodiscard]] bool evicts() const { return slots_ != 0; }

    /// Takes room for `lines` more; false where there is not so much.
    [[nodiscard]] bool take(std::uint32_t lines)
    {
        const auto before = used_.fetch_add(lines, std::memory_order_acq_rel);
        if (before + lines <= limit_) {
            raise_peak(before + lines);
            return true;
        }
        used_.fetch_sub(lines, std::memory_order_acq_rel);
        return false;
    }
    void give(std::uint32_t lines) { used_.fetch_sub(lines, std::memory_order_acq_rel); }

    [[nodiscard]] std::uint32_t used() const { return std::min(used_.load(std::memory_order_relaxed), limit_); }
    [[nodiscard]] std::uint32_t peak() const { return peak_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t available() const { return limit_ - used(); }

    /// Below the low watermark the evictor starts; it stops at the high one.
    [[nodiscard]] bool below_low() const { return evicts() && available() < low_; }
    [[nodiscard]] bool below_high() const { return evicts() && available() < 2 * low_; }

  private:
    void raise_peak(std::uint32_t used)
    {
        auto peak = peak_.load(std::memory_order_relaxed);
        while (used > peak && !peak_.compare_exchange_weak(peak, used, std::memory_order_relaxed)) {
        }
    }

    std::uint32_t slots_;
    std::uint32_t limit_;
    std::uint32_t low_;
    std::atomic<std::uint32_t> used_{0};
    std::atomic<std::uint32_t> peak_{0};
};

}  // namespace splitvisor::excache
