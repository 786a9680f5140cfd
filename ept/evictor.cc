#include "ept/evictor.h"

#include <sched.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"

namespace splitvisor::ept {

using excache::LineState;

Evictor::Evictor(EngineState& state, Withdrawal& withdrawal, std::unique_ptr<remote_mem::PageSession> session)
    : state_{state},
      withdrawal_{withdrawal},
      session_{std::move(session)},
      policy_{state.table.size(), state.budget.limit()},
      ring_{state.budget.victim_slots()},
      random_{static_cast<std::uint_fast32_t>(state.options.torture_seed)}
{
    writes_.reserve(kBatch);
    digests_.reserve(kBatch);
    write_slots_.reserve(kBatch);
    drops_.reserve(kBatch);
}

void Evictor::run()
{
    while (!state_.stopping()) {
        drop_forgotten();
        if (!state_.budget.evicts()) {
            state_.wait_for_work(std::chrono::milliseconds{100});
        } else if (state_.options.torture) {
            if (!torture_round()) state_.wait_for_work(std::chrono::milliseconds{1});
        } else if (state_.budget.below_high()) {
            evict_batch(kBatch);
        } else {
            state_.wait_for_work(std::chrono::milliseconds{100});
        }
    }
}

bool Evictor::torture_round()
{
    // The guest must get on as well, on a slow host too: what was taken comes back, by half at least, before
    // more is taken, or does not although there was time to bring all of it several times.
    constexpr std::uint64_t kTimes = 8;
    constexpr std::uint64_t kLongestMs = 1000;
    const auto faults = state_.counters.faults.load(std::memory_order_relaxed);
    if (faults < torture_until_faults_ && now_ms() < torture_until_ms_) return false;
    const auto wanted = 1 + random_() % kBatch;
    const auto fault_ns =
        state_.counters.fault_ns_total.load(std::memory_order_relaxed) / std::max<std::uint64_t>(faults, 1);
    torture_until_faults_ = faults + wanted / 2;
    torture_until_ms_ = now_ms() + std::min(kTimes * wanted * fault_ns / 1'000'000, kLongestMs);
    evict_batch(wanted);
    return true;
}

std::optional<Line> Evictor::choose()
{
    if (!state_.options.torture || random_() % 2 == 0) return policy_.pick();
    return Line{static_cast<std::uint32_t>(random_() % state_.table.size())};
}

void Evictor::evict_batch(std::size_t wanted)
{
    admit_new_lines();
    while (ring_.free() < wanted) settle_oldest_victim();
    const auto count = claim_batch(wanted);
    if (count == 0) {
        // Everything is claimed by others at this moment: let them finish.
        ::sched_yield();
        return;
    }
    const auto pages = std::span{batch_}.first(count);
    std::sort(pages.begin(), pages.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
    assign_slots(pages);
    withdrawal_.withdraw(pages);
    sort_out(pages);
    write_back(writes_);
}

void Evictor::admit_new_lines()
{
    state_.admissions.drain([this](Line line, bool was_victim) { policy_.admit(line, was_victim); });
}

std::size_t Evictor::claim_batch(std::size_t wanted)
{
    std::size_t count = 0;
    // Lines that went another way since they were admitted are passed over; each pick takes one entry away,
    // each guess finds one by and by.
    while (count < wanted && !state_.stopping()) {
        const auto line = choose();
        if (!line) break;
        if (!state_.table.claim(*line, LineState::kResident, LineState::kWithdrawing)) continue;
        batch_[count++] = {.line = *line};
    }
    return count;
}

void Evictor::settle_oldest_victim()
{
    const auto [slot, line] = ring_.pop();
    settle(slot, line);
    // Nobody reads the slot any more.
    if (state_.slots[slot].load(std::memory_order_acquire) != SlotState::kGivenBack)
        state_.budget.empty_slots(1);
}

void Evictor::settle(std::uint32_t slot, Line line)
{
    while (true) {
        const auto seen = state_.table.state(line);
        const bool is_in_slot =
            (seen == LineState::kVictim || seen == LineState::kRestoring) && state_.table.slot(line) == slot;
        if (!is_in_slot) return;
        // A handler is copying out of the slot: that takes microseconds.
        if (seen == LineState::kRestoring) {
            ::sched_yield();
            continue;
        }
        // write_back has returned for every line in the ring, so the store has this content.
        if (!state_.table.claim(line, LineState::kVictim, LineState::kWithdrawing)) continue;
        state_.counters.victim_lines.fetch_sub(1, std::memory_order_relaxed);
        release_and_wake(line, LineState::kRemote);
        return;
    }
}

void Evictor::assign_slots(std::span<WithdrawnPage> pages)
{
    std::size_t done = 0;
    while (done < pages.size()) {
        const auto first = ring_.next();
        const auto count = std::min<std::size_t>(ring_.contiguous_free(), pages.size() - done);
        withdrawal_.recycle(first, static_cast<std::uint32_t>(count));
        for (auto& page : pages.subspan(done, count)) {
            page.slot = ring_.push(page.line);
            page.taken = false;
            state_.slots[page.slot].store(SlotState::kTravelling, std::memory_order_release);
        }
        done += count;
    }
    state_.budget.fill_slots(static_cast<std::uint32_t>(done));
}

void Evictor::sort_out(std::span<const WithdrawnPage> pages)
{
    writes_.clear();
    digests_.clear();
    write_slots_.clear();
    std::uint32_t withdrawn = 0;
    for (const auto& page : pages) {
        if (!page.taken) {
            give_back(page);
            continue;
        }
        ++withdrawn;
        policy_.evicted(page.line);
        take_drop_wish(page.line);
        const auto* content = withdrawal_.slot(page.slot);
        auto& known = state_.remote[page.line.value()];
        if (is_zero_page(content)) {
            EngineCounters::raise(state_.counters.evicted_zero);
            if (known.version != Version{}) {
                state_.drop_wanted[page.line.value()].store(1, std::memory_order_release);
                state_.drops_waiting.fetch_add(1, std::memory_order_release);
            }
            release_and_wake(page.line, LineState::kZero);
            continue;
        }
        const auto digest = digest_of(content);
        if (known.version != Version{} && XXH128_isEqual(digest, known.digest)) {
            EngineCounters::raise(state_.counters.evicted_clean);
            state_.slots[page.slot].store(SlotState::kSettled, std::memory_order_release);
        } else {
            write_slots_.push_back(page.slot);
            writes_.push_back({.line = page.line, .from = content, .version = Version{++last_version_}});
            digests_.push_back(digest);
        }
        state_.table.set_slot(page.line, page.slot);
        EngineCounters::raise(state_.counters.victim_lines);
        release_and_wake(page.line, LineState::kVictim);
    }
    state_.give_room(withdrawn);
}

void Evictor::give_back(const WithdrawnPage& page)
{
    release_and_wake(page.line, LineState::kResident);
    policy_.admit(page.line, false);
}

void Evictor::release_and_wake(Line line, LineState to)
{
    if (state_.table.release(line, to)) state_.userfault.wake(state_.page(line), PageCount{1});
}

void Evictor::write_back(std::span<const remote_mem::PageWrite> writes)
{
    if (writes.empty()) return;
    if (!repeat_until_done([&] { return session_->write(writes); })) return;
    for (std::size_t i = 0; i < writes.size(); ++i) {
        state_.remote[writes[i].line.value()] = {.version = writes[i].version, .digest = digests_[i]};
        state_.slots[write_slots_[i]].store(SlotState::kSettled, std::memory_order_release);
    }
    EngineCounters::raise(state_.counters.written_back, writes.size());
}

void Evictor::take_drop_wish(Line line)
{
    // The line has content again, which decides what becomes of the store's copy.
    if (state_.drop_wanted[line.value()].exchange(0, std::memory_order_acq_rel) != 0) {
        state_.drops_waiting.fetch_sub(1, std::memory_order_release);
    }
}

void Evictor::drop_forgotten()
{
    if (state_.drops_waiting.load(std::memory_order_acquire) == 0) return;
    for (std::uint32_t i = 0; i < state_.table.size() && !state_.stopping(); ++i) {
        if (state_.drop_wanted[i].load(std::memory_order_acquire) == 0) continue;
        const Line line{i};
        take_drop_wish(line);
        if (state_.remote[i].version == Version{}) continue;
        drops_.push_back(line);
        if (drops_.size() == kBatch) send_drops();
    }
    send_drops();
}

void Evictor::send_drops()
{
    if (drops_.empty()) return;
    const Version version{++last_version_};
    if (repeat_until_done([&] { return session_->drop(drops_, version); })) {
        for (const Line dropped : drops_) state_.remote[dropped.value()] = {};
    }
    drops_.clear();
}

template <typename Call>
bool Evictor::repeat_until_done(Call&& call)
{
    bool waited = false;
    while (!state_.stopping()) {
        const Status status = call();
        if (status) {
            if (waited) state_.set_waiting("");
            return true;
        }
        if (!is_worth_repeating(status.error())) {
            state_.fail(status.error());
            // The slots must keep what only they hold: nothing more is evicted.
            while (!state_.stopping()) state_.wait_for_work(std::chrono::milliseconds{100});
            return false;
        }
        state_.set_waiting(status.error().message());
        waited = true;
        state_.pause_before_retry();
    }
    return false;
}

}  // namespace splitvisor::ept
