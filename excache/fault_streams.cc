#include "excache/fault_streams.h"

#include <algorithm>

namespace splitvisor::excache {
namespace {

/// How far beyond the expected line a fault may lie and still go on with the sequence: what lies between is local already,
/// or was taken by another vCPU.
constexpr std::uint32_t kSlack = 4;
constexpr std::uint32_t kFirstWindow = 4;
/// A sequence of which so much was wanted will go on.
constexpr std::uint32_t kAheadFrom = 16;
/// So many rounds of faults that belong to no sequence does a sequence outlive.
constexpr std::uint8_t kMostCredit = 8;

}  // namespace

bool FaultStreams::continues(const Stream& stream, std::uint32_t line)
{
    // Wraps to a huge number where the line lies on the other side.
    const auto up = line - stream.next;
    const auto down = stream.next - line;
    switch (stream.direction) {
    case Direction::kUp: return up <= kSlack;
    case Direction::kDown: return down <= kSlack;
    case Direction::kUnknown: return (up != 0 && up <= kSlack) || (down != 0 && down <= kSlack);
    }
    return false;
}

/// A line of the window that was brought last, and lately: it was in another state than the others. Older windows are only
/// places where random faults fall into.
bool FaultStreams::is_inside(const Stream& stream, std::uint32_t line)
{
    if (stream.direction != Direction::kUnknown && stream.credit < kMostCredit) return false;
    switch (stream.direction) {
    case Direction::kUp: return stream.next - line - 1 < stream.window;
    case Direction::kDown: return line - stream.next - 1 < stream.window;
    case Direction::kUnknown: return stream.next == line;
    }
    return false;
}

FaultStreams::Stream FaultStreams::advance(const Stream& stream, std::uint32_t line)
{
    Stream result = stream;
    result.credit = kMostCredit;
    if (stream.direction == Direction::kUnknown) {
        result.direction = line > stream.next ? Direction::kUp : Direction::kDown;
        result.window = kFirstWindow;
    } else {
        result.window = static_cast<std::uint8_t>(std::min<std::uint32_t>(2u * stream.window, kLargestWindow));
    }
    // Downwards it may pass zero, and then no line continues it.
    result.next = result.direction == Direction::kUp ? line + result.window : line - result.window;
    return result;
}

LineWindow FaultStreams::window_of(const Stream& stream, std::uint32_t line, std::uint32_t lines)
{
    switch (stream.direction) {
    case Direction::kUp: return {line, std::min<std::uint32_t>(stream.next, lines) - line};
    case Direction::kDown: {
        const auto count = std::min(line - stream.next, line + 1);
        return {line + 1 - count, count};
    }
    case Direction::kUnknown: break;
    }
    return {line, 1};
}

/// Beginning with the line where the sequence is expected to go on.
LineWindow FaultStreams::window_after(const Stream& stream, std::uint32_t lines)
{
    // Downwards it may have passed zero.
    if (stream.window < kAheadFrom || stream.next >= lines) return {0, 0};
    if (stream.direction == Direction::kUp) return {stream.next, std::min<std::uint32_t>(stream.window, lines - stream.next)};
    const auto count = std::min<std::uint32_t>(stream.window, stream.next + 1);
    return {stream.next + 1 - count, count};
}

FaultPlan FaultStreams::on_fault(Line faulting, std::uint32_t lines)
{
    const auto line = faulting.value();
    for (auto& entry : streams_) {
        auto stream = entry.load(std::memory_order_relaxed);
        if (stream.window == 0) continue;
        if (is_inside(stream, line)) return {.now = window_of(stream, line, lines)};
        if (!continues(stream, line)) continue;
        const auto next = advance(stream, line);
        (void)entry.compare_exchange_strong(stream, next, std::memory_order_relaxed);
        return {window_of(next, line, lines), window_after(next, lines), next.direction == Direction::kDown};
    }
    remember(line);
    return {.now = {line, 1}};
}

void FaultStreams::remember(std::uint32_t line)
{
    for (std::size_t tries = 0;; ++tries) {
        auto& entry = streams_[hand_.fetch_add(1, std::memory_order_relaxed) % kStreams];
        auto stream = entry.load(std::memory_order_relaxed);
        if (stream.credit == 0 || tries == kStreams) {
            entry.store({.next = line, .window = 1}, std::memory_order_relaxed);
            return;
        }
        auto poorer = stream;
        --poorer.credit;
        (void)entry.compare_exchange_strong(stream, poorer, std::memory_order_relaxed);
    }
}

}  // namespace splitvisor::excache
