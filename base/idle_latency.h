#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "base/fd.h"
#include "base/thread.h"

namespace splitvisor {

/// Keeps idle processors from halting while a process handles many short events, whose threads wait for each other: waking a
/// processor out of its sleep takes up to 60 us, out of the kernel's idle loop 5. The kernel's interface is a latency limit that
/// holds while the file is open (PM QoS); where this process may not open it, or there is none, nothing happens.
class IdleLatency {
  public:
    /// Held from the first of these rates on, in events a second, until the rate falls below the second.
    static constexpr std::uint64_t kHoldFrom = 2'000;
    static constexpr std::uint64_t kReleaseBelow = 500;

    /// `events` returns how many there were so far; it is called by a thread of this object, until that is gone.
    explicit IdleLatency(std::function<std::uint64_t()> events, std::string file = "/dev/cpu_dma_latency");
    IdleLatency(const IdleLatency&) = delete;
    IdleLatency& operator=(const IdleLatency&) = delete;
    ~IdleLatency();

    [[nodiscard]] bool holds() const;

  private:
    void watch();
    void adapt(std::uint64_t rate);

    const std::function<std::uint64_t()> events_;
    const std::string file_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool stopping_ = false;
    Fd limit_;  ///< open while it holds
    Thread thread_;
};

}  // namespace splitvisor
