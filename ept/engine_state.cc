#include "ept/engine_state.h"

#include <cstring>

#include "base/checked.h"

namespace splitvisor::ept {

EngineState::EngineState(const EngineOptions& engine_options, Mapping guest_mapping, Mapping landing_slots,
                         Userfault fault_descriptor, std::function<void(const Error&)> on_fatal_error)
    : options{engine_options},
      guest{std::move(guest_mapping)},
      landed_pages{std::move(landing_slots)},
      userfault{std::move(fault_descriptor)},
      table{narrow<std::uint32_t>(options.memory.value() >> kPageShift)},
      budget{table.size(), narrow<std::uint32_t>(options.excache.value() >> kPageShift)},
      admissions{table.size()},
      remote(table.size()),
      drop_wanted(table.size()),
      slots(budget.victim_slots()),
      on_fatal_{std::move(on_fatal_error)}
{
}

bool EngineState::take_room()
{
    if (budget.take(1)) return true;
    EngineCounters::raise(counters.room_stalls);
    room_waiters_.fetch_add(1, std::memory_order_acq_rel);
    bool taken = false;
    while (!stopping()) {
        call_evictor_if_short();
        std::unique_lock lock{mutex_};
        // The time limit covers room that was given between the attempt and the wait.
        taken = budget.take(1);
        if (taken) break;
        room_changed_.wait_for(lock, std::chrono::milliseconds{10});
    }
    room_waiters_.fetch_sub(1, std::memory_order_acq_rel);
    return taken;
}

void EngineState::give_room(std::uint32_t lines)
{
    budget.give(lines);
    if (room_waiters_.load(std::memory_order_acquire) != 0) {
        const std::lock_guard lock{mutex_};
        room_changed_.notify_all();
    }
}

void EngineState::call_evictor_if_short()
{
    if (!budget.below_low() || evictor_called_.exchange(true, std::memory_order_acq_rel)) return;
    const std::lock_guard lock{mutex_};
    work_arrived_.notify_one();
}

void EngineState::wait_for_work(std::chrono::milliseconds limit)
{
    std::unique_lock lock{mutex_};
    work_arrived_.wait_for(lock, limit, [this] {
        return stopping() || evictor_called_.load(std::memory_order_acquire) ||
               drops_waiting.load(std::memory_order_acquire) != 0;
    });
    evictor_called_.store(false, std::memory_order_release);
}

void EngineState::fail(const Error& error)
{
    if (failed_.exchange(true)) return;
    set_waiting(error.message());
    on_fatal_(error);
}

void EngineState::stop()
{
    stopping_.store(true, std::memory_order_release);
    const std::lock_guard lock{mutex_};
    room_changed_.notify_all();
    work_arrived_.notify_all();
}

void EngineState::set_waiting(const std::string& reason)
{
    const std::lock_guard lock{mutex_};
    waiting_for_ = reason;
}

std::string EngineState::waiting() const
{
    const std::lock_guard lock{mutex_};
    return waiting_for_;
}

void EngineState::pause_before_retry()
{
    EngineCounters::raise(counters.retries);
    std::unique_lock lock{mutex_};
    room_changed_.wait_for(lock, std::chrono::milliseconds{50}, [this] { return stopping(); });
}

bool is_zero_page(const std::byte* page)
{
    // Most pages that are not zero say so in their first bytes.
    constexpr std::size_t kFirst = 64;
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < kFirst; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, page + i, 8);
        any |= word;
    }
    return any == 0 && std::memcmp(page, page + kFirst, kPageBytes - kFirst) == 0;
}

bool is_worth_repeating(const Error& error)
{
    return error.code() == ErrorCode::kUnavailable || error.code() == ErrorCode::kTimeout ||
           error.code() == ErrorCode::kNoRoom;
}

}  // namespace splitvisor::ept
