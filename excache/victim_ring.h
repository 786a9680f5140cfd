#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/log.h"
#include "base/units.h"

namespace splitvisor::excache {

/// The victim slots in the order in which they are filled: a ring. Bookkeeping only; the pages are ept's.
/// Owned by the evictor thread.
class VictimRing {
  public:
    explicit VictimRing(std::uint32_t slots) : lines_(slots, kEmpty) {}

    [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(lines_.size()); }
    [[nodiscard]] std::uint32_t free() const { return size() - count_; }

    /// How many of the free slots are next to each other from next().
    [[nodiscard]] std::uint32_t contiguous_free() const { return std::min(free(), size() - next_); }
    [[nodiscard]] std::uint32_t next() const { return next_; }

    /// Fills the next slot; returns its number.
    std::uint32_t push(Line line)
    {
        SPLITVISOR_CHECK(free() > 0);
        const auto slot = next_;
        lines_[slot] = line.value();
        next_ = (next_ + 1) % size();
        ++count_;
        return slot;
    }

    struct Entry {
        std::uint32_t slot;
        Line line;
    };

    /// Empties the slot that was filled first.
    Entry pop()
    {
        SPLITVISOR_CHECK(count_ > 0);
        const auto slot = (next_ + size() - count_) % size();
        --count_;
        const Line line{lines_[slot]};
        lines_[slot] = kEmpty;
        return {slot, line};
    }

    [[nodiscard]] std::uint32_t count() const { return count_; }

  private:
    static constexpr std::uint32_t kEmpty = ~std::uint32_t{0};
    std::vector<std::uint32_t> lines_;
    std::uint32_t next_ = 0;
    std::uint32_t count_ = 0;
};

}  // namespace splitvisor::excache
