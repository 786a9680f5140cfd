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
/// A fault that goes on where a sequence stood widens its window, up to kLargestWindow. One that belongs to none asks for as
/// many lines as three of four sequences were long of late, so random faults bring nothing that nobody wants and programs
/// that work in blocks bring a block at once: every kProbeEvery-th sequence is followed in small steps, to learn that. Where
/// most sequences begin at one distance from the one before (Leap's majority trend, ATC 2020), the next one is planned ahead.
/// Lock-free; any thread. Two threads that meet on one sequence may forget a step of it, which costs a fault.
class FaultStreams {
  public:
    static constexpr std::uint32_t kLargestWindow = 64;
    static constexpr std::size_t kStreams = 16;
    static constexpr std::uint32_t kProbeEvery = 8;

    /// `lines` of the vNode; both windows are within 0 to lines - 1. The sequence goes on with a fault on the line of `ahead`
    /// that the guest comes to first, or soon after: whoever reads ahead leaves that one unmapped.
    FaultPlan on_fault(Line line, std::uint32_t lines);

  private:
    enum class Direction : std::uint8_t {
        kUnknown,     ///< one fault, one line
        kPresumedUp,  ///< one fault, several lines
        kUp,
        kDown,
    };

    /// One sequence. `next` is the line where the window that was brought last ends, seen in the direction; the fault's own
    /// line where that is unknown.
    struct Stream {
        std::uint32_t next = 0;
        std::uint8_t window = 0;  ///< 0: free
        Direction direction = Direction::kUnknown;
        std::uint8_t credit = 0;  ///< how often it is spared when a place is needed
        std::uint8_t probed = 0;  ///< of a probe: the lines from its first fault to its last; 0 for others
    };
    static_assert(sizeof(Stream) == 8);

    static bool is_probe(std::uint32_t ordinal) { return ordinal % kProbeEvery == 0; }
    static bool continues(const Stream& stream, std::uint32_t line);
    static bool is_inside(const Stream& stream, std::uint32_t line);
    static bool goes_down(const Stream& stream, std::uint32_t line);
    Stream advance(const Stream& stream, std::uint32_t line);
    Stream begin(std::uint32_t line, std::uint32_t ordinal);
    void remember(const Stream& stream, std::uint32_t place);
    /// Where the next sequence will begin, if most began at one distance; `lines` or more where nobody can say.
    std::uint32_t next_beginning(std::uint32_t line, std::uint32_t ordinal, std::uint32_t lines);
    /// A sequence of so many lines has ended, or is longer than all that matters.
    void learn(std::uint32_t length);
    static LineWindow window_of(const Stream& stream, std::uint32_t line, std::uint32_t lines);
    static LineWindow window_after(const Stream& stream, std::uint32_t lines);

    std::array<std::atomic<Stream>, kStreams> streams_{};
    std::atomic<std::uint32_t> hand_{0};

    static constexpr std::uint32_t kDistances = 8;
    static constexpr std::uint32_t kMajority = 5;
    std::array<std::atomic<std::uint32_t>, kDistances> distances_{};  ///< between the last beginnings, modulo 2^32
    std::atomic<std::uint32_t> last_beginning_{0};

    static constexpr std::size_t kLengths = 16;
    std::array<std::atomic<std::uint8_t>, kLengths> lengths_{};  ///< of the last probes
    std::atomic<std::uint32_t> learnt_{0};
    std::atomic<std::uint8_t> first_window_{1};
};

}  // namespace splitvisor::excache
