#include "ept/fault_handler.h"

#include <algorithm>
#include <cstring>

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
    auto landing = Mapping::anonymous(PageCount{kGroup}.bytes());
    if (!landing) return landing.error();
    auto zeros = Mapping::anonymous(PageCount{kGroup}.bytes());
    if (!zeros) return zeros.error();
    return std::unique_ptr<FaultHandler>{
        new FaultHandler{state, withdrawal, std::move(session), std::move(*landing), std::move(*zeros)}};
}

FaultHandler::FaultHandler(EngineState& state, Withdrawal* withdrawal,
                           std::unique_ptr<remote_mem::PageSession> session, Mapping landing, Mapping zeros)
    : state_{state},
      withdrawal_{withdrawal},
      session_{std::move(session)},
      landing_{std::move(landing)},
      zeros_{std::move(zeros)}
{
}

void FaultHandler::run()
{
    while (!state_.stopping()) {
        const auto event = state_.readers->next(spinner_);
        if (!event) return state_.fail(event.error());
        if (!*event) continue;
        serve(**event);
        read_ahead();
    }
}

void FaultHandler::serve(const UserfaultEvent& event)
{
    const auto start_ns = now_ns();
    plan_ = {};
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
    case LineState::kVictim:
    case LineState::kLanded: break;
    }

    if (seen == LineState::kVictim) {
        if (!state_.table.claim(line, seen, LineState::kRestoring)) return false;
        restore(line);
    } else if (seen == LineState::kLanded) {
        if (!state_.table.claim(line, seen, LineState::kFetching)) return false;
        take_landed(line);
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
    plan_ = state_.streams.on_fault(line, state_.table.size());
    const auto window = plan_.now;
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
        if (other == line || claim_spare(other, from)) group_[count++] = other;
    }
    return std::span{group_}.first(count);
}

bool FaultHandler::claim_spare(Line line, LineState from)
{
    if (state_.table.state(line) != from || !state_.budget.has_spare() || !state_.budget.take(1)) return false;
    if (state_.table.claim(line, from, LineState::kFetching)) return true;
    state_.give_room(1);
    return false;
}

void FaultHandler::give_up(std::span<const Line> lines)
{
    for (const Line each : lines) {
        if (state_.table.release(each, LineState::kRemote)) state_.userfault.wake(state_.page(each), PageCount{1});
    }
    state_.give_room(static_cast<std::uint32_t>(lines.size()));
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
        // Nobody will be served any more, but the claim must not stay.
        return give_up(lines);
    }
    install_runs(lines, landing_.data());
    EngineCounters::raise(state_.counters.remote_pages, lines.size());
    for (const Line each : lines) finish(each, false);
}

bool FaultHandler::read_pages(std::span<const Line> lines)
{
    bool waited = false;
    while (!state_.stopping()) {
        const auto status = try_to_read(lines);
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

Status FaultHandler::try_to_read(std::span<const Line> lines)
{
    for (std::size_t i = 0; i < lines.size(); ++i) {
        reads_[i] = {.line = lines[i], .into = landing_.data() + i * kPageBytes};
    }
    auto status = session_->read(std::span{reads_}.first(lines.size()));
    for (std::size_t i = 0; status && i < lines.size(); ++i) status = check_page(reads_[i]);
    return status;
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

void FaultHandler::take_landed(Line line)
{
    plan_ = state_.streams.on_fault(line, state_.table.size());
    const auto slot = state_.table.slot(line);
    install_runs(std::span{&line, 1}, state_.landed_page(slot));
    state_.landed.free(slot);
    EngineCounters::raise(state_.counters.ahead_reached);
    finish(line, false);
}

void FaultHandler::read_ahead()
{
    // Somebody has to stay for the faults of others.
    if (plan_.ahead.count == 0 || state_.options.handlers == 1) return;
    if (state_.readers_ahead.fetch_add(1, std::memory_order_acq_rel) < state_.options.handlers - 1) {
        while (plan_.ahead.count > 0 && !state_.stopping() && read_window_ahead(plan_)) {
        }
    }
    state_.readers_ahead.fetch_sub(1, std::memory_order_acq_rel);
}

bool FaultHandler::read_window_ahead(const excache::FaultPlan& plan)
{
    std::size_t count = 0;
    for (std::uint32_t i = plan.ahead.first; i < plan.ahead.first + plan.ahead.count; ++i) {
        if (claim_spare(Line{i}, LineState::kRemote)) group_[count++] = Line{i};
    }
    if (count == 0) return false;
    const auto lines = std::span{group_}.first(count);
    const auto slot = take_landing_slot();
    if (!slot || !try_to_read(lines)) {
        // Whatever is wrong, the fault that needs one of them will ask again and say it.
        if (slot) {
            state_.landed.free(*slot);
            EngineCounters::raise(state_.counters.retries);
        }
        give_up(lines);
        return false;
    }
    EngineCounters::raise(state_.counters.ahead_windows);
    EngineCounters::raise(state_.counters.ahead_pages, count);
    EngineCounters::raise(state_.counters.remote_pages, count);

    const std::size_t entrance = plan.is_downwards ? count - 1 : 0;
    const Line first = lines[entrance];
    std::memcpy(state_.landed_page(*slot), landing_.data() + entrance * kPageBytes, kPageBytes);
    const bool landed = state_.landed.land(state_.table, first, *slot);
    const std::size_t from = landed && !plan.is_downwards ? 1 : 0;
    const auto installed = lines.subspan(from, count - (landed ? 1 : 0));
    install_runs(installed, landing_.data() + from * kPageBytes);
    for (const Line each : installed) finish(each, false);
    state_.call_evictor_if_short();
    if (landed) return false;
    EngineCounters::raise(state_.counters.ahead_reached);
    plan_ = state_.streams.on_fault(first, state_.table.size());
    return true;
}

std::optional<std::uint32_t> FaultHandler::take_landing_slot()
{
    const auto place = state_.landed.take(state_.table);
    if (!place) return std::nullopt;
    if (place->line) {
        install_runs(std::span{&*place->line, 1}, state_.landed_page(place->slot));
        finish(*place->line, false);
    }
    return place->slot;
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
