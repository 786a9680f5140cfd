#include "controller/wire/command_queue.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace splitvisor::wire {

CommandQueue::CommandQueue(std::size_t workers, Deliver deliver) : deliver_{std::move(deliver)}
{
    for (std::size_t i = 0; i < workers; ++i) {
        workers_.emplace_back("command", [this] { work(); });
    }
}

CommandQueue::~CommandQueue()
{
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        waiting_.clear();
    }
    changed_.notify_all();
    workers_.clear();
}

void CommandQueue::submit(std::uint64_t id, std::string lane, std::uint64_t deadline_ms, Job job)
{
    std::optional<Result<std::string>> known;
    {
        const std::lock_guard lock{mutex_};
        if (const auto found = results_.find(id); found != results_.end()) {
            known = found->second;
        } else if (unfinished_.contains(id)) {
            return;
        } else if (waiting_.size() >= kMaxWaiting) {
            known = Error{ErrorCode::kNoRoom, "too many commands wait on this component"};
        } else {
            unfinished_.insert(id);
            waiting_.push_back({id, std::move(lane), now_ms() + deadline_ms, std::move(job)});
        }
    }
    if (known) {
        deliver_(id, *known);
    } else {
        changed_.notify_one();
    }
}

std::optional<CommandQueue::Waiting> CommandQueue::take_next()
{
    std::unique_lock lock{mutex_};
    for (;;) {
        if (stopping_) return std::nullopt;
        const auto next = std::find_if(waiting_.begin(), waiting_.end(), [this](const Waiting& waiting) {
            return !busy_lanes_.contains(waiting.lane);
        });
        if (next != waiting_.end()) {
            Waiting taken = std::move(*next);
            waiting_.erase(next);
            busy_lanes_.insert(taken.lane);
            return taken;
        }
        changed_.wait(lock);
    }
}

void CommandQueue::work()
{
    while (auto next = take_next()) {
        if (now_ms() > next->begin_before_ms) {
            finish(next->id, Error{ErrorCode::kTimeout, "the command's deadline passed before it could begin"});
        } else {
            finish(next->id, next->job());
        }
        {
            const std::lock_guard lock{mutex_};
            busy_lanes_.erase(next->lane);
        }
        changed_.notify_all();
    }
}

void CommandQueue::finish(std::uint64_t id, Result<std::string> result)
{
    {
        const std::lock_guard lock{mutex_};
        unfinished_.erase(id);
        remember(id, result);
    }
    deliver_(id, result);
}

void CommandQueue::remember(std::uint64_t id, const Result<std::string>& result)
{
    if (results_.insert_or_assign(id, result).second) result_order_.push_back(id);
    while (result_order_.size() > kRememberedResults) {
        results_.erase(result_order_.front());
        result_order_.pop_front();
    }
}

}  // namespace splitvisor::wire
