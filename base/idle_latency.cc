#include "base/idle_latency.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"

namespace splitvisor {
namespace {

/// Short enough to help a burst, long enough to cost nothing.
constexpr auto kInterval = std::chrono::milliseconds{50};

}  // namespace

IdleLatency::IdleLatency(std::function<std::uint64_t()> events, std::string file)
    : events_{std::move(events)}, file_{std::move(file)}, thread_{"idle-latency", [this] { watch(); }}
{
}

IdleLatency::~IdleLatency()
{
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

bool IdleLatency::holds() const
{
    const std::lock_guard lock{mutex_};
    return limit_.valid();
}

void IdleLatency::watch()
{
    auto before = events_();
    auto before_ns = now_ns();
    std::unique_lock lock{mutex_};
    while (!changed_.wait_for(lock, kInterval, [this] { return stopping_; })) {
        // Not called under the lock: whoever counts may have locks of his own.
        lock.unlock();
        const auto now = events_();
        lock.lock();
        const auto since_ns = std::exchange(before_ns, now_ns());
        adapt((now - std::exchange(before, now)) * 1'000'000'000 / std::max<std::uint64_t>(before_ns - since_ns, 1));
    }
}

void IdleLatency::adapt(std::uint64_t rate)
{
    if (limit_.valid()) {
        if (rate < kReleaseBelow) limit_.reset();
        return;
    }
    if (rate < kHoldFrom) return;
    Fd limit{::open(file_.c_str(), O_WRONLY | O_CLOEXEC)};
    constexpr std::int32_t kMicroseconds = 0;
    if (limit.valid() && ::write(limit.get(), &kMicroseconds, sizeof kMicroseconds) == sizeof kMicroseconds) {
        limit_ = std::move(limit);
    }
}

}  // namespace splitvisor
