#pragma once

#include <mutex>
#include <optional>

#include "base/fd.h"
#include "vmm/machine.h"

namespace splitvisor::vmm {

/// Where any thread says that the VMM ends; the main thread waits for it. The first ending counts.
class EndingSignal {
  public:
    explicit EndingSignal(EventFd event) : event_{std::move(event)} {}

    void set(Ending ending)
    {
        {
            const std::lock_guard lock{mutex_};
            if (ending_) return;
            ending_ = std::move(ending);
        }
        event_.signal();
    }
    [[nodiscard]] std::optional<Ending> get() const
    {
        const std::lock_guard lock{mutex_};
        return ending_;
    }
    /// Readable once there is an ending.
    [[nodiscard]] int fd() const { return event_.fd(); }

  private:
    EventFd event_;
    mutable std::mutex mutex_;
    std::optional<Ending> ending_;
};

}  // namespace splitvisor::vmm
