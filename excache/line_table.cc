#include "excache/line_table.h"

#include "base/log.h"

namespace splitvisor::excache {

namespace {

constexpr std::uint32_t kStateMask = 0xf;
constexpr std::uint32_t kWanted = 0x10;

constexpr std::uint32_t word_of(LineState state) { return static_cast<std::uint32_t>(state); }
constexpr LineState state_of(std::uint32_t word) { return static_cast<LineState>(word & kStateMask); }

constexpr bool is_claim(LineState state) { return word_of(state) >= word_of(LineState::kFetching); }

}  // namespace

std::string_view to_string(LineState state)
{
    switch (state) {
    case LineState::kZero: return "zero";
    case LineState::kRemote: return "remote";
    case LineState::kResident: return "resident";
    case LineState::kVictim: return "victim";
    case LineState::kLanded: return "landed";
    case LineState::kFetching: return "fetching";
    case LineState::kRestoring: return "restoring";
    case LineState::kWithdrawing: return "withdrawing";
    case LineState::kForgetting: return "forgetting";
    }
    return "unknown";
}

LineTable::LineTable(std::uint32_t lines) : words_(lines), slots_(lines) {}

LineState LineTable::state(Line line) const
{
    return state_of(words_[line.value()].load(std::memory_order_acquire));
}

bool LineTable::claim(Line line, LineState from, LineState to)
{
    std::uint32_t expected = word_of(from);
    return words_[line.value()].compare_exchange_strong(expected, word_of(to), std::memory_order_acq_rel);
}

bool LineTable::release(Line line, LineState to)
{
    const auto before = words_[line.value()].exchange(word_of(to), std::memory_order_acq_rel);
    SPLITVISOR_CHECK(is_claim(state_of(before)));
    return (before & kWanted) != 0;
}

bool LineTable::release_unless_wanted(Line line, LineState to)
{
    auto& word = words_[line.value()];
    auto expected = word.load(std::memory_order_relaxed);
    SPLITVISOR_CHECK(is_claim(state_of(expected)));
    // Whoever wants the line only sets the mark, and never takes it away.
    return (expected & kWanted) == 0 && word.compare_exchange_strong(expected, word_of(to), std::memory_order_acq_rel);
}

bool LineTable::want(Line line, LineState during)
{
    std::uint32_t expected = word_of(during);
    auto& word = words_[line.value()];
    while (!word.compare_exchange_weak(expected, expected | kWanted, std::memory_order_acq_rel)) {
        if (state_of(expected) != during) return false;
    }
    return true;
}

AdmissionList::AdmissionList(std::uint32_t lines) : next_(lines), flags_(lines) {}

void AdmissionList::push(Line line, bool was_victim)
{
    const std::uint8_t flags = static_cast<std::uint8_t>(kListed | (was_victim ? kWasVictim : 0));
    if ((flags_[line.value()].fetch_or(flags, std::memory_order_acq_rel) & kListed) != 0) return;
    std::uint32_t head = head_.load(std::memory_order_relaxed);
    do {
        next_[line.value()] = head;
    } while (!head_.compare_exchange_weak(head, line.value(), std::memory_order_release, std::memory_order_relaxed));
}

}  // namespace splitvisor::excache
