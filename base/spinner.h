#pragma once

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/clock.h"

namespace splitvisor {

/// Whether one thread's waits poll before they sleep: only where there is more than one processor, while recent waits were
/// short, and while nobody else needs the processor. Used by one thread.
class Spinner {
  public:
    /// As long as a sleep and a wake-up take: a reply over loopback is here after 8 us where both ends spin and after
    /// 45 to 50 us where both sleep.
    static constexpr std::uint64_t kSpinNs = 50'000;

    [[nodiscard]] bool worthwhile() const { return has_several_processors() && credit_ > 0; }

    /// Polls `ready` for at most kSpinNs; true once it is. Each time between it gives the processor to whoever has work, the
    /// peer perhaps. A yield that comes back late says that all processors are taken, and then a sleeper is served sooner.
    template <typename Ready>
    bool poll(Ready ready)
    {
        const auto start_ns = now_ns();
        auto now = start_ns;
        bool lost_processor = false;
        bool arrived = false;
        while (!(arrived = ready()) && now - start_ns < kSpinNs) {
            ::sched_yield();
            const auto before = std::exchange(now, now_ns());
            lost_processor = lost_processor || now - before > kSpinNs;
        }
        credit_ = lost_processor ? -kBusyDebt : std::min(credit_ + (arrived ? 1 : -1), kMaxCredit);
        return arrived;
    }

    /// A wait slept instead, for so long.
    void slept(std::uint64_t ns)
    {
        // The wake-up is part of what was measured, hence twice.
        if (ns < 2 * kSpinNs) credit_ = std::min(credit_ + 1, kMaxCredit);
    }

  private:
    /// So many waits in a row for which spinning was too short end it, so that an idle thread costs nothing.
    static constexpr int kMaxCredit = 8;
    /// So many short sleeps must follow a yield after which others kept the processor.
    static constexpr int kBusyDebt = 32;

    static bool has_several_processors()
    {
        static const bool several = ::sysconf(_SC_NPROCESSORS_ONLN) > 1;
        return several;
    }

    int credit_ = 1;
};

}  // namespace splitvisor
