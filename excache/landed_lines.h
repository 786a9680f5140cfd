#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "base/units.h"
#include "excache/line_table.h"

namespace splitvisor::excache {

/// The landing slots: each holds one line that was read ahead and is not mapped, so that a fault says when the guest gets
/// there. Bookkeeping only; the pages are ept's. Lock-free; any thread.
class LandedLines {
  public:
    static constexpr std::uint32_t kSlots = 32;

    LandedLines()
    {
        for (std::uint32_t slot = 0; slot < kSlots; ++slot) free(slot);
    }

    struct Place {
        std::uint32_t slot;
        std::optional<Line> line;  ///< lay there and is in kFetching now: the caller brings it before it fills the slot
    };
    /// A slot that nobody else uses any more: a free one, or that of a line which nobody has wanted for a while. Nothing
    /// where all are being filled or emptied at this moment.
    [[nodiscard]] std::optional<Place> take(LineTable& table);

    /// A claimed line lies in the slot: kLanded from now on. False where a fault waits for it: the claim goes on and the slot
    /// is free.
    [[nodiscard]] bool land(LineTable& table, Line line, std::uint32_t slot);

    /// By whoever claimed the line that lay there.
    void free(std::uint32_t slot) { lines_[slot].store(kFree, std::memory_order_release); }

  private:
    static constexpr std::uint32_t kFree = ~std::uint32_t{0};
    static constexpr std::uint32_t kTaken = kFree - 1;

    std::array<std::atomic<std::uint32_t>, kSlots> lines_;
    std::atomic<std::uint32_t> hand_{0};
};

}  // namespace splitvisor::excache
