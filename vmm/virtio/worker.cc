#include "vmm/virtio/worker.h"

#include <utility>

#include "base/log.h"

namespace splitvisor::vmm::virtio {

Result<std::unique_ptr<Worker>> Worker::create(std::string name)
{
    auto wake = EventFd::create();
    if (!wake) return wake.error().in("virtio worker");
    auto worker = std::unique_ptr<Worker>{new Worker{std::move(*wake)}};
    worker->thread_ = Thread{std::move(name), [self = worker.get()] { self->run(); }};
    return worker;
}

Worker::Worker(EventFd wake) : wake_{std::move(wake)} {}

Worker::~Worker()
{
    rest();
    {
        const std::scoped_lock lock{mutex_};
        state_ = State::kEnded;
    }
    changed_.notify_all();
    thread_.join();
}

void Worker::start(std::vector<Source> sources)
{
    {
        const std::scoped_lock lock{mutex_};
        SPLITVISOR_CHECK(state_ == State::kResting);
        sources_ = std::move(sources);
        stop_ = false;
        wake_.drain();
        state_ = State::kServing;
    }
    changed_.notify_all();
}

void Worker::rest()
{
    std::unique_lock lock{mutex_};
    stop_ = true;
    wake_.signal();
    changed_.wait(lock, [this] { return state_ != State::kServing; });
}

void Worker::run()
{
    for (;;) {
        {
            std::unique_lock lock{mutex_};
            changed_.wait(lock, [this] { return state_ != State::kResting; });
            if (state_ == State::kEnded) return;
        }
        while (!stop_) serve_sources();
        {
            const std::scoped_lock lock{mutex_};
            sources_.clear();
            state_ = State::kResting;
        }
        changed_.notify_all();
    }
}

void Worker::serve_sources()
{
    polled_.clear();
    // poll(2) reports errors of a descriptor even when nothing is asked of it, and skips negative ones.
    for (const auto& source : sources_) polled_.push_back({source.events != 0 ? source.fd : -1, source.events, 0});
    polled_.push_back({wake_.fd(), POLLIN, 0});
    if (::poll(polled_.data(), polled_.size(), -1) <= 0) return;
    for (std::size_t i = 0; i < sources_.size() && !stop_; ++i) {
        if (polled_[i].revents != 0) sources_[i].serve();
    }
}

}  // namespace splitvisor::vmm::virtio
