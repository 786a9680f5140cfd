#include "excache/landed_lines.h"

namespace splitvisor::excache {

std::optional<LandedLines::Place> LandedLines::take(LineTable& table)
{
    for (std::uint32_t tries = 0; tries < kSlots; ++tries) {
        const auto slot = hand_.fetch_add(1, std::memory_order_relaxed) % kSlots;
        auto seen = lines_[slot].load(std::memory_order_acquire);
        if (seen == kTaken) continue;
        if (seen == kFree) {
            if (lines_[slot].compare_exchange_strong(seen, kTaken, std::memory_order_acq_rel)) return Place{slot, {}};
            continue;
        }
        const Line line{seen};
        if (!table.claim(line, LineState::kLanded, LineState::kFetching)) continue;
        // It may have gone and landed anew meanwhile, in another slot.
        const auto its_slot = table.slot(line);
        lines_[its_slot].store(kTaken, std::memory_order_release);
        return Place{its_slot, line};
    }
    return std::nullopt;
}

bool LandedLines::land(LineTable& table, Line line, std::uint32_t slot)
{
    table.set_slot(line, slot);
    lines_[slot].store(line.value(), std::memory_order_release);
    if (table.release_unless_wanted(line, LineState::kLanded)) return true;
    free(slot);
    return false;
}

}  // namespace splitvisor::excache
