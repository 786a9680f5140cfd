#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "ept/userfault.h"

namespace splitvisor::ept {

/// One page to take from the guest into a victim slot.
struct WithdrawnPage {
    Line line;
    std::uint32_t slot = 0;
    bool taken = false;  ///< out
};

/// Takes pages from the guest so that no write is lost: whatever a writer stored before the page became unreachable is
/// in the slot afterwards, and whoever writes later waits on a fault. Reading a page and dropping it afterwards, the
/// textbook order, does lose writes between the two.
/// Owned by the evictor thread, which has claimed the lines; give_back and slot are for any thread.
class Withdrawal {
  public:
    virtual ~Withdrawal() = default;

    /// Sorted by line; runs of lines whose slots lie side by side are taken together. A page that is not taken is still
    /// mapped and writable. Waiters are not woken.
    virtual void withdraw(std::span<WithdrawnPage> pages) = 0;

    /// The content of a slot that a taken page went to; valid until the slot is recycled.
    [[nodiscard]] virtual std::byte* slot(std::uint32_t slot) const = 0;

    /// Brings a page back to the guest and wakes its waiters; the slot's memory goes with it. Any thread that has
    /// claimed the line.
    [[nodiscard]] virtual Status give_back(std::uint32_t slot, Line line) = 0;

    /// The slots [first, first + count) hold nothing that is needed and will be filled next.
    virtual void recycle(std::uint32_t first, std::uint32_t count) = 0;

    [[nodiscard]] virtual const char* name() const = 0;

    /// `guest` is watched by `userfault`. kAuto takes the first that works when tried: move, write-protect.
    static Result<std::unique_ptr<Withdrawal>> create(Mechanism mechanism, Userfault& userfault,
                                                      std::span<std::byte> guest, std::uint32_t slots);
};

}  // namespace splitvisor::ept
