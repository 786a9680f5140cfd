#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "base/thread.h"

namespace splitvisor::controller {

/// Threads that do what may wait. Thread-safe.
class WorkerPool {
  public:
    WorkerPool(std::size_t workers, std::size_t max_waiting);
    ~WorkerPool() { stop(); }
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;

    /// False where too much waits already.
    [[nodiscard]] bool add(std::function<void()> work);
    /// Waits for the work under way; forgets what waits.
    void stop();

  private:
    void run();

    const std::size_t max_waiting_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> waiting_;
    bool stopping_ = false;
    std::vector<Thread> threads_;
};

}  // namespace splitvisor::controller
