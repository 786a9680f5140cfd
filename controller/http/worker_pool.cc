#include "controller/http/worker_pool.h"

#include <utility>

namespace splitvisor::controller {

WorkerPool::WorkerPool(std::size_t workers, std::size_t max_waiting) : max_waiting_{max_waiting}
{
    for (std::size_t i = 0; i < workers; ++i) {
        threads_.emplace_back("worker", [this] { run(); });
    }
}

bool WorkerPool::add(std::function<void()> work)
{
    {
        const std::lock_guard lock{mutex_};
        if (stopping_ || waiting_.size() >= max_waiting_) return false;
        waiting_.push_back(std::move(work));
    }
    changed_.notify_one();
    return true;
}

void WorkerPool::stop()
{
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        waiting_.clear();
    }
    changed_.notify_all();
    threads_.clear();
}

void WorkerPool::run()
{
    for (;;) {
        std::function<void()> work;
        {
            std::unique_lock lock{mutex_};
            changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
            if (stopping_) return;
            work = std::move(waiting_.front());
            waiting_.pop_front();
        }
        work();
    }
}

}  // namespace splitvisor::controller
