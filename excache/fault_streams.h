#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/units.h"

namespace splitvisor::excache {

/// Lines of which one fault says that they will be wanted.
struct LineWindow {
    std::uint32_t first = 0;
    std::uint32_t count = 1;
};

/// What one fault says about those to come.
struct FaultPlan {
    LineWindow now;                 ///< worth bringing for the fault itself; its line is in it
    LineWindow ahead{0, 0};         ///< worth reading while the guest works on those; none for the first faults of a sequence
    bool is_downwards = false;      ///< the guest will come to the last line of `ahead` first
};

/// Finds sequences in the faults of a vNode, several at once, upwards and downwards, whichever thread serves which fault.
/// A fault that goes on where a sequence stood widens its window, up to kLargestWindow; one that belongs to none asks for
/// its own line alone, so random faults bring nothing that nobody wants. Lock-free; any thread. Two threads that meet
/// on one sequence may forget a step of it, which costs a fault.
class FaultStreams {
  public:
    static constexpr std::uint32_t kLargestWindow = 64;
    static constexpr std::size_t kStreams = 16;

    /// `lines` of the vNode; both windows are within 0 to lines - 1. The sequence goes on with a fault on the line of `ahead`
    /// that the guest comes to first, or soon after: whoever reads ahead leaves that one unmapped.
    FaultPlan on_fault(Line line, std::uint32_t lines);

  private:
    enum class Direction : std::uint8_t { kUnknown, kUp, kDown };

    /// One sequence. `next` is the line where the window that was brought last ends, seen in the direction.
    struct Stream {
        std::uint32_t next = 0;
        std::uint8_t window = 0;  ///< 0: free
        Direction direction = Direction::kUnknown;
        std::uint8_t credit = 0;  ///< how often it is spared when a place is needed
        std::uint8_t unused = 0;  ///< so that equal ones have equal bytes
    };
    static_assert(sizeof(Stream) == 8);

    static bool continues(const Stream& stream, std::uint32_t line);
    static bool is_inside(const Stream& stream, std::uint32_t line);
    static Stream advance(const Stream& stream, std::uint32_t line);
    void remember(std::uint32_t line);
    static LineWindow window_of(const Stream& stream, std::uint32_t line, std::uint32_t lines);
    static LineWindow window_after(const Stream& stream, std::uint32_t lines);

    std::array<std::atomic<Stream>, kStreams> streams_{};
    std::atomic<std::uint32_t> hand_{0};
};

}  // namespace splitvisor::excache
