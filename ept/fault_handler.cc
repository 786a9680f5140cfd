#include "ept/fault_handler.h"

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"

namespace splitvisor::ept {

using excache::LineState;

namespace {

/// The number of lines from `first` on that follow each other.
std::size_t run_length(std::span<const Line> lines, std::size_t first)
{
    std::size_t length = 1;
    while (first + length < lines.size() && lines[first + length].value() == lines[first].value() + length) ++length;
    return length;
}

}  // namespace

Result<std::unique_ptr<FaultHandler>> FaultHandler::create(EngineState& state, Withdrawal* withdrawal,
                                                           std::unique_ptr<remote_mem::PageSession> session)
{
    auto reader = UserfaultReader::create(state.userfault, state.somebody_spins);
    if (!reader) return reader.error();
    auto landing = Mapping::anonymous(PageCount{kGroup}.bytes());
    if (!landing) return landing.error();
    auto zeros = Mapping::anonymous(PageCount{kGroup}.bytes());
    if (!zeros) return zeros.error();
    return std::unique_ptr<FaultHandler>{
        new FaultHandler{state, withdrawal, std::move(session), std::move(*reader), std::move(*landing), std::move(*zeros)}};
}

FaultHandler::FaultHandler(EngineState& state, Withdrawal* withdrawal,
                           std::unique_ptr<remote_mem::PageSession> session, UserfaultReader reader, Mapping landing,
                           Mapping zeros)
    : state_{state},
      withdrawal_{withdrawal},
      session_{std::move(session)},
      reader_{std::move(reader)},
      landing_{std::move(landing)},
      zeros_{std::move(zeros)}
{
}

void FaultHandler::run()
{
    while (!state_.stopping()) {
        const auto event = reader_.next();
        if (!event) return state_.fail(event.error());
        if (*event) serve(**event);
    }
}

void FaultHandler::serve(const UserfaultEvent& event)
{
    const auto start_ns = now_ns();
    EngineCounters::raise(state_.counters.faults);
    const auto offset = static_cast<std::uint64_t>(event.address - state_.guest.data());
    // Only guest RAM is touched by threads that may fault; a victim slot is touched only while it is filled.
    SPLITVISOR_CHECK(offset < state_.guest.size());
    serve_line(Line{static_cast<std::uint32_t>(offset >> kPageShift)});
    EngineCounters::raise(state_.counters.fault_ns_total, now_ns() - start_ns);
}

void FaultHandler::serve_line(Line line)
{
    // Each round either serves the fault or saw the line move on under another thread's hands.
    while (!state_.stopping()) {
        if (serve_as(line, state_.table.state(line))) return;
    }
}

bool FaultHandler::serve_as(Line line, LineState seen)
{
    switch (seen) {
    case LineState::kResident:
        // The message is older than the installation, or the waiter stood at a protection that is lifted by now.
        state_.userfault.wake(state_.page(line), PageCount{1});
        return true;
    case LineState::kFetching:
    case LineState::kRestoring:
    case LineState::kWithdrawing:
    case LineState::kForgetting:
        if (!state_.table.want(line, seen)) return false;
        EngineCounters::raise(state_.counters.in_flight_waits);
        return true;
    case LineState::kZero:
    case LineState::kRemote:
    case LineState::kVictim: break;
    }

    if (seen == LineState::kVictim) {
        if (!state_.table.claim(line, seen, LineState::kRestoring)) return false;
        restore(line);
    } else {
        if (!state_.take_room()) return true;
        if (!state_.table.claim(line, seen, LineState::kFetching)) {
            state_.give_room(1);
            return false;
        }
        if (seen == LineState::kZero) fill_zero(line);
        if (seen == LineState::kRemote) fetch(line);
    }
    state_.call_evictor_if_short();
    return true;
}

excache::LineWindow FaultHandler::window_around(Line line)
{
    // While nothing has to make room for them, neighbours cost next to nothing.
    constexpr std::uint32_t kNeighbours = 16;
    const auto window = state_.streams.on_fault(line, state_.table.size());
    // What a sequence brings is a relief that a tortured guest must not have.
    const bool is_sequence = window.count >= kNeighbours && !state_.options.torture;
    if (is_sequence || !state_.budget.plenty()) return window;
    const auto first = line.value() / kNeighbours * kNeighbours;
    return {first, std::min(kNeighbours, state_.table.size() - first)};
}

std::span<const Line> FaultHandler::claim_group(Line line, LineState from)
{
    std::size_t count = 0;
    const auto window = window_around(line);
    for (std::uint32_t i = window.first; i < window.first + window.count; ++i) {
        const Line other{i};
        if (other != line) {
            if (state_.table.state(other) != from || !state_.budget.has_spare() || !state_.budget.take(1)) continue;
            if (!state_.table.claim(other, from, LineState::kFetching)) {
                state_.give_room(1);
                continue;
            }
        }
        group_[count++] = other;
    }
    return std::span{group_}.first(count);
}

void FaultHandler::fill_zero(Line line)
{
    const auto lines = claim_group(line, LineState::kZero);
    install_runs(lines, zeros_.data());
    EngineCounters::raise(state_.counters.zero_fills, lines.size());
    for (const Line each : lines) finish(each, false);
}

void FaultHandler::fetch(Line line)
{
    EngineCounters::raise(state_.counters.remote_faults);
    const auto lines = claim_group(line, LineState::kRemote);
    if (!read_pages(lines)) {
        // The engine stops or has failed: nobody will be served any more, but the claim must not stay.
        for (const Line each : lines) (void)state_.table.release(each, LineState::kRemote);
        state_.give_room(static_cast<std::uint32_t>(lines.size()));
        return;
    }
    install_runs(lines, landing_.data());
    EngineCounters::raise(state_.counters.remote_pages, lines.size());
    for (const Line each : lines) finish(each, false);
}

bool FaultHandler::read_pages(std::span<const Line> lines)
{
    bool waited = false;
    while (!state_.stopping()) {
        for (std::size_t i = 0; i < lines.size(); ++i) {
            reads_[i] = {.line = lines[i], .into = landing_.data() + i * kPageBytes};
        }
        auto status = session_->read(std::span{reads_}.first(lines.size()));
        for (std::size_t i = 0; status && i < lines.size(); ++i) status = check_page(reads_[i]);
        if (status) {
            if (waited) state_.set_waiting("");
            return true;
        }
        if (!is_worth_repeating(status.error())) {
            state_.fail(status.error());
            return false;
        }
        state_.set_waiting(status.error().message());
        waited = true;
        state_.pause_before_retry();
    }
    return false;
}

Status FaultHandler::check_page(const remote_mem::PageRead& page) const
{
    const auto& known = state_.remote[page.line.value()];
    const auto where = "line " + std::to_string(page.line.value());
    if (!page.present) return Error{ErrorCode::kNotFound, where + " was written back, but the store has lost it"};
    if (page.version != known.version) {
        return Error{ErrorCode::kCorrupt, where + ": the store returned version " +
                                              std::to_string(page.version.value()) + " instead of " +
                                              std::to_string(known.version.value())};
    }
    if (!XXH128_isEqual(digest_of(page.into), known.digest)) {
        return Error{ErrorCode::kCorrupt, where + ": the store returned other content than was written back"};
    }
    return {};
}

void FaultHandler::restore(Line line)
{
    const auto slot = state_.table.slot(line);
    state_.budget.take_for_victim();
    const bool is_settled = state_.slots[slot].load(std::memory_order_acquire) == SlotState::kSettled;
    const auto status = is_settled ? withdrawal_->give_back(slot, line)
                                   : state_.userfault.copy(state_.page(line), withdrawal_->slot(slot), PageCount{1});
    if (!status) return state_.fail(status.error().in("giving a victim line back"));
    if (is_settled) {
        state_.slots[slot].store(SlotState::kGivenBack, std::memory_order_release);
        state_.budget.empty_slots(1);
    }
    EngineCounters::raise(state_.counters.victim_hits);
    state_.counters.victim_lines.fetch_sub(1, std::memory_order_relaxed);
    finish(line, true);
}

void FaultHandler::install_runs(std::span<const Line> lines, const std::byte* from)
{
    for (std::size_t i = 0; i < lines.size();) {
        const auto length = run_length(lines, i);
        const auto status = state_.userfault.copy(state_.page(lines[i]), from + i * kPageBytes, PageCount{length});
        if (!status) state_.fail(status.error().in("installing guest pages"));
        i += length;
    }
}

void FaultHandler::finish(Line line, bool was_victim)
{
    // The installation woke everyone who waited on the page before it; a message that was read during the claim came
    // from one of those, but its waiter may have queued itself after the installation looked. Waking is cheap.
    if (state_.table.release(line, LineState::kResident)) state_.userfault.wake(state_.page(line), PageCount{1});
    state_.admissions.push(line, was_victim);
}

}  // namespace splitvisor::ept
