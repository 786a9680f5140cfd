#include "excache/fault_streams.h"

#include <algorithm>

namespace splitvisor::excache {
namespace {

/// How far beyond the expected line a fault may lie and still go on with the sequence: what lies between is local already,
/// or was taken by another vCPU.
constexpr std::uint32_t kSlack = 4;
/// The second window of a sequence, and all those of a probe: it ends that close to the sequence.
constexpr std::uint32_t kSmallWindow = 4;
/// A sequence of which so much was wanted will go on.
constexpr std::uint32_t kAheadFrom = 16;
/// So many rounds of faults that belong to no sequence does a sequence outlive.
constexpr std::uint8_t kMostCredit = 8;

}  // namespace

bool FaultStreams::goes_down(const Stream& stream, std::uint32_t line)
{
    // Wraps to a huge number where the line lies on the other side.
    const auto first = stream.direction == Direction::kPresumedUp ? stream.next - stream.window : stream.next;
    const auto down = first - line;
    return stream.direction == Direction::kDown ? down <= kSlack : down != 0 && down <= kSlack;
}

bool FaultStreams::continues(const Stream& stream, std::uint32_t line)
{
    const auto up = line - stream.next;
    switch (stream.direction) {
    case Direction::kUp: return up <= kSlack;
    case Direction::kDown: return goes_down(stream, line);
    case Direction::kUnknown: return (up != 0 && up <= kSlack) || goes_down(stream, line);
    case Direction::kPresumedUp: return up <= kSlack || goes_down(stream, line);
    }
    return false;
}

/// A line of the window that was brought last, and lately: it was in another state than the others. Older windows are only
/// places where random faults fall into.
bool FaultStreams::is_inside(const Stream& stream, std::uint32_t line)
{
    const bool is_lately = stream.credit == kMostCredit;
    switch (stream.direction) {
    case Direction::kUp: return is_lately && stream.next - line - 1 < stream.window;
    case Direction::kDown: return is_lately && line - stream.next - 1 < stream.window;
    case Direction::kPresumedUp: return stream.next - line - 1 < stream.window;
    case Direction::kUnknown: return stream.next == line;
    }
    return false;
}

FaultStreams::Stream FaultStreams::advance(const Stream& stream, std::uint32_t line)
{
    const bool is_first_step = stream.direction == Direction::kUnknown || stream.direction == Direction::kPresumedUp;
    const bool down = stream.direction != Direction::kUp && goes_down(stream, line);
    Stream result = stream;
    result.credit = kMostCredit;
    result.direction = down ? Direction::kDown : Direction::kUp;
    if (stream.probed != 0) {
        const auto last = is_first_step ? stream.next : down ? stream.next + stream.window : stream.next - stream.window;
        const auto length = stream.probed + (down ? last - line : line - last);
        result.probed = static_cast<std::uint8_t>(std::min(length, kLargestWindow));
        if (length >= kLargestWindow) {
            learn(kLargestWindow);
            result.probed = 0;
        }
    }
    const bool starts_small = result.probed != 0 || (is_first_step && (down || stream.direction == Direction::kUnknown));
    result.window = static_cast<std::uint8_t>(
        starts_small ? kSmallWindow : std::min(std::max<std::uint32_t>(2u * stream.window, kSmallWindow), kLargestWindow));
    // Downwards it may pass zero, and then no line continues it.
    result.next = down ? line - result.window : line + result.window;
    return result;
}

LineWindow FaultStreams::window_of(const Stream& stream, std::uint32_t line, std::uint32_t lines)
{
    switch (stream.direction) {
    case Direction::kPresumedUp:
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
    const auto ordinal = hand_.fetch_add(1, std::memory_order_relaxed);
    const auto stream = begin(line, ordinal);
    remember(stream, ordinal);
    FaultPlan plan{.now = window_of(stream, line, lines)};
    if (const auto beginning = next_beginning(line, ordinal, lines); beginning < lines) {
        plan.ahead = {beginning, std::min<std::uint32_t>(first_window_.load(std::memory_order_relaxed), lines - beginning)};
    }
    return plan;
}

std::uint32_t FaultStreams::next_beginning(std::uint32_t line, std::uint32_t ordinal, std::uint32_t lines)
{
    const auto before = last_beginning_.exchange(line, std::memory_order_relaxed);
    distances_[ordinal % kDistances].store(line - before, std::memory_order_relaxed);
    // The only value that can be a majority (Boyer and Moore), and then whether it is one.
    std::array<std::uint32_t, kDistances> distances{};
    std::uint32_t candidate = 0;
    std::uint32_t votes = 0;
    for (std::uint32_t i = 0; i < kDistances; ++i) {
        distances[i] = distances_[i].load(std::memory_order_relaxed);
        if (votes == 0) candidate = distances[i];
        distances[i] == candidate ? ++votes : --votes;
    }
    // A probe must not find its lines there already.
    if (is_probe(ordinal + 1)) return lines;
    if (candidate == 0 || std::ranges::count(distances, candidate) < kMajority) return lines;
    return line + candidate;
}

FaultStreams::Stream FaultStreams::begin(std::uint32_t line, std::uint32_t ordinal)
{
    if (is_probe(ordinal)) return {.next = line, .window = 1, .probed = 1};
    const auto window = first_window_.load(std::memory_order_relaxed);
    if (window == 1) return {.next = line, .window = 1};
    return {.next = line + window, .window = window, .direction = Direction::kPresumedUp};
}

void FaultStreams::remember(const Stream& stream, std::uint32_t place)
{
    for (std::size_t tries = 0;; ++tries) {
        auto& entry = streams_[(place + tries) % kStreams];
        auto old = entry.load(std::memory_order_relaxed);
        if (old.credit == 0 || tries == kStreams) {
            if (old.probed != 0) learn(old.probed == 1 ? 1 : old.probed + kSmallWindow / 2);
            entry.store(stream, std::memory_order_relaxed);
            return;
        }
        auto poorer = old;
        --poorer.credit;
        (void)entry.compare_exchange_strong(old, poorer, std::memory_order_relaxed);
    }
}

void FaultStreams::learn(std::uint32_t length)
{
    const auto at = learnt_.fetch_add(1, std::memory_order_relaxed) % kLengths;
    lengths_[at].store(static_cast<std::uint8_t>(std::min(length, kLargestWindow)), std::memory_order_relaxed);
    std::array<std::uint8_t, kLengths> sorted{};
    for (std::size_t i = 0; i < kLengths; ++i) sorted[i] = lengths_[i].load(std::memory_order_relaxed);
    std::ranges::sort(sorted);
    const auto reached_by_most = std::max<std::uint8_t>(sorted[kLengths / 4], 1);
    first_window_.store(reached_by_most, std::memory_order_relaxed);
}

}  // namespace splitvisor::excache
