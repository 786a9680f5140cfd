#pragma once

#include <poll.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/thread.h"

namespace splitvisor::vmm::virtio {

/// The thread of a device. It lives as long as the device, so that no vCPU thread ever makes threads, and sleeps while
/// the device is not active. start() and rest() are called in turn, by one thread at a time, never by the worker.
class Worker {
  public:
    struct Source {
        int fd = -1;
        short events = 0;             ///< of poll(2); 0: not listened to
        std::function<void()> serve;  ///< called when any of them, or an error, is there
    };

    static Result<std::unique_ptr<Worker>> create(std::string name);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    /// Begins to serve; the descriptors stay open until rest().
    void start(std::vector<Source> sources);
    /// Returns once the worker has left the last `serve` and will call none any more. Waits for one call at most.
    void rest();

    /// From within `serve` only.
    void listen(std::size_t source, short events) { sources_[source].events = events; }

  private:
    enum class State { kResting, kServing, kEnded };

    explicit Worker(EventFd wake);
    void run();
    void serve_sources();

    EventFd wake_;
    std::mutex mutex_;  ///< guards the state; the sources belong to the worker while it serves
    std::condition_variable changed_;
    State state_ = State::kResting;
    std::vector<Source> sources_;
    std::vector<pollfd> polled_;
    std::atomic<bool> stop_{false};
    Thread thread_;
};

}  // namespace splitvisor::vmm::virtio
