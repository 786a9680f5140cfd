#include "vstore/session_gate.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/log.h"

namespace splitvisor::vstore {

/// Enough to recognise every VMM that might still be trying under one lease epoch.
static constexpr std::size_t kMaxSuperseded = 64;

static Error gate_closed()
{
    return Error{ErrorCode::kNotFound, "the volume is being deleted"};
}
static Error newer_session()
{
    return Error{ErrorCode::kStale, "a newer session uses the volume"};
}

template <typename Predicate>
bool SessionGate::wait_until(std::unique_lock<std::mutex>& lock, std::uint64_t deadline_ms, Predicate done)
{
    const auto now = now_ms();
    const std::chrono::milliseconds patience{deadline_ms > now ? deadline_ms - now : 0};
    return changed_.wait_for(lock, patience, done);
}

bool SessionGate::is_older(const SessionKey& key) const
{
    if (std::ranges::find(superseded_, key.instance) != superseded_.end()) return true;
    return newest_ && newest_->instance == key.instance && key.counter <= newest_->counter;
}

void SessionGate::note_newest(const SessionKey& key)
{
    if (newest_ && newest_->instance != key.instance) {
        superseded_.push_back(newest_->instance);
        if (superseded_.size() > kMaxSuperseded) superseded_.pop_front();
    }
    newest_ = key;
}

bool SessionGate::has_writer() const
{
    return std::ranges::any_of(inside_, [](const Inside& session) { return session.writes; });
}

Status SessionGate::enter(const SessionKey& key, Fenceable& who, std::uint64_t deadline_ms)
{
    std::unique_lock lock{mutex_};
    if (closed_) return gate_closed();
    if (is_older(key)) return newer_session();
    note_newest(key);
    changed_.notify_all();
    for (const auto& older : inside_) {
        if (older.writes) older.session->fence();
    }

    const bool settled =
        wait_until(lock, deadline_ms, [&] { return !has_writer() || newest_ != key || closed_; });
    if (closed_) return gate_closed();
    if (newest_ != key) return newer_session();
    if (!settled) return Error{ErrorCode::kUnavailable, "an older session of the volume has not ended yet"};
    let_in(who, true);
    return {};
}

Status SessionGate::enter_reader(Fenceable& who)
{
    const std::lock_guard lock{mutex_};
    if (closed_) return gate_closed();
    let_in(who, false);
    return {};
}

void SessionGate::leave(Fenceable& who)
{
    const std::lock_guard lock{mutex_};
    SPLITVISOR_CHECK(std::erase_if(inside_, [&](const Inside& session) { return session.session == &who; }) ==
                     1);
    changed_.notify_all();
}

Status SessionGate::expel_all(std::uint64_t deadline_ms)
{
    std::unique_lock lock{mutex_};
    const auto first_spared = next_entry_;
    for (const auto& session : inside_) session.session->fence();
    const bool gone = wait_until(lock, deadline_ms, [&] {
        return std::ranges::none_of(inside_,
                                    [&](const Inside& session) { return session.entry < first_spared; });
    });
    if (!gone) return Error{ErrorCode::kTimeout, "a session of the volume has not ended in time"};
    return {};
}

void SessionGate::close()
{
    const std::lock_guard lock{mutex_};
    closed_ = true;
    changed_.notify_all();
}

}  // namespace splitvisor::vstore
