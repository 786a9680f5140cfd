#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread.h"

namespace splitvisor::wire {

/// Executes the controller's commands, each id once, and remembers the latest results, so that a command that is sent
/// again after a reconnection gets its answer instead of a second execution. Thread-safe.
class CommandQueue {
  public:
    using Job = std::function<Result<std::string>()>;
    /// Called by a worker, or by submit() for a result that is known. Must not call back into the queue.
    using Deliver = std::function<void(std::uint64_t id, const Result<std::string>& result)>;

    static constexpr std::size_t kMaxWaiting = 1024;
    static constexpr std::size_t kRememberedResults = 1024;

    CommandQueue(std::size_t workers, Deliver deliver);
    /// Waits for the jobs that run; forgets those that wait.
    ~CommandQueue();
    CommandQueue(const CommandQueue&) = delete;
    CommandQueue& operator=(const CommandQueue&) = delete;

    /// Jobs of one lane run one after the other, in the order of their arrival; lanes run beside each other. A job that
    /// could not begin within `deadline_ms` is not begun any more: its result is kTimeout.
    void submit(std::uint64_t id, std::string lane, std::uint64_t deadline_ms, Job job);

  private:
    struct Waiting {
        std::uint64_t id;
        std::string lane;
        std::uint64_t begin_before_ms;
        Job job;
    };

    void work();
    std::optional<Waiting> take_next();
    void finish(std::uint64_t id, Result<std::string> result);
    void remember(std::uint64_t id, const Result<std::string>& result);

    const Deliver deliver_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Waiting> waiting_;
    std::set<std::string> busy_lanes_;
    std::set<std::uint64_t> unfinished_;
    std::map<std::uint64_t, Result<std::string>> results_;
    std::deque<std::uint64_t> result_order_;
    bool stopping_ = false;
    std::vector<Thread> workers_;
};

}  // namespace splitvisor::wire
