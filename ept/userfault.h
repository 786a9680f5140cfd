#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/fd.h"
#include "base/result.h"
#include "base/spinner.h"
#include "base/units.h"

namespace splitvisor::ept {

/// What this kernel's userfaultfd can do (linux/userfaultfd.h, feature bits).
struct UserfaultFeatures {
    bool write_protect = false;  ///< UFFD_FEATURE_PAGEFAULT_FLAG_WP, Linux 5.7 on anonymous memory
    bool move = false;           ///< UFFD_FEATURE_MOVE, Linux 6.8
};

struct UserfaultEvent {
    std::byte* address = nullptr;
    bool write_protected = false;  ///< the page is there, but write-protected
};

/// A userfaultfd over anonymous memory, kernel-mode faults included. Thread-safe, as the kernel's is.
/// Ranges are whole pages. EAGAIN (the address space is changing) is repeated inside.
class Userfault {
  public:
    /// kUnsupported where the kernel has no userfaultfd, kDenied where this process may not use it; both say what to do.
    static Result<Userfault> create();

    [[nodiscard]] UserfaultFeatures features() const { return features_; }

    /// Absent pages of the range raise events from now on, and write-protected ones where the kernel can.
    [[nodiscard]] Status watch(std::span<std::byte> range);

    /// Blocks for the next event. Nothing where a signal interrupted the wait.
    [[nodiscard]] Result<std::optional<UserfaultEvent>> read_event();

    /// Installs pages that are absent and wakes whoever waits for them. kExists: one of them is there.
    [[nodiscard]] Status copy(std::byte* to, const std::byte* from, PageCount pages);

    void wake(std::byte* at, PageCount pages);

    /// Sets or lifts write protection; lifting wakes the writers that wait.
    [[nodiscard]] Status protect(std::byte* at, PageCount pages, bool on);

    /// Takes pages from `from` to the absent pages at `to`, atomically towards every writer. Returns how many pages
    /// were moved before the first that the kernel would not let go.
    [[nodiscard]] PageCount move(std::byte* to, std::byte* from, PageCount pages);

  private:
    friend class UserfaultReaders;
    Userfault(Fd fd, UserfaultFeatures features) : fd_{std::move(fd)}, features_{features} {}
    Fd fd_;
    UserfaultFeatures features_;
};

/// Where several threads wait for the events of a userfaultfd: each event wakes one of them, where a blocking read would wake
/// them all, and none where one is polling, which one at a time does for a moment before it sleeps.
class UserfaultReaders {
  public:
    /// From here on Userfault::read_event() does not block. `userfault` outlives it.
    static Result<std::unique_ptr<UserfaultReaders>> create(Userfault& userfault);

    /// Waits for the next event; `spinner` is the calling thread's own. Nothing where a signal interrupted the wait, or another
    /// thread was quicker.
    [[nodiscard]] Result<std::optional<UserfaultEvent>> next(Spinner& spinner);

  private:
    UserfaultReaders(Userfault& userfault, Fd epoll) : userfault_{userfault}, epoll_{std::move(epoll)} {}

    /// Lets the next event, or one that is there already, wake a sleeper: one event, one sleeper.
    [[nodiscard]] Status arm() { return set_events(EPOLLIN | EPOLLONESHOT); }
    [[nodiscard]] Status disarm() { return set_events(0); }
    [[nodiscard]] Status set_events(std::uint32_t events);
    [[nodiscard]] Result<std::optional<UserfaultEvent>> poll(Spinner& spinner);

    Userfault& userfault_;
    Fd epoll_;
    std::atomic<bool> somebody_polls_{false};
};

}  // namespace splitvisor::ept
