#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "base/result.h"
#include "vstore/protocol.h"

namespace splitvisor::vstore {

/// A session that can be told to end. fence() is quick, waits for nothing and may be called by any thread;
/// the session then finishes what it has begun and leaves the gate.
class Fenceable {
  public:
    virtual void fence() = 0;

  protected:
    ~Fenceable() = default;
};

/// Lets one writing session at a time use a volume. A newer session fences the older and is let in only when
/// the older has left, so no request of the older one can take effect after the newer one was answered.
/// Thread-safe.
class SessionGate {
  public:
    /// Waits until `who` is the only writing session. kStale: a newer session is known. kUnavailable: the
    /// older one has not ended by the deadline (now_ms() time). kNotFound: the gate is closed.
    Status enter(const SessionKey& key, Fenceable& who, std::uint64_t deadline_ms);

    /// Sessions that cannot write pass beside each other. kNotFound: the gate is closed.
    Status enter_reader(Fenceable& who);

    /// After this the session is not called any more. `who` had entered.
    void leave(Fenceable& who);

    /// Fences every session that is inside and waits until these have left; kTimeout where that takes longer.
    Status expel_all(std::uint64_t deadline_ms);

    /// No session enters any more.
    void close();

  private:
    struct Inside {
        Fenceable* session;
        std::uint64_t entry;  ///< numbers the entries
        bool writes;
    };
    [[nodiscard]] bool has_writer() const;
    void let_in(Fenceable& who, bool writes) { inside_.push_back({&who, next_entry_++, writes}); }
    [[nodiscard]] bool is_older(const SessionKey& key) const;
    void note_newest(const SessionKey& key);
    template <typename Predicate>
    [[nodiscard]] bool wait_until(std::unique_lock<std::mutex>& lock, std::uint64_t deadline_ms,
                                  Predicate done);

    std::mutex mutex_;
    std::condition_variable changed_;
    bool closed_ = false;
    std::vector<Inside> inside_;
    std::uint64_t next_entry_ = 0;
    std::optional<SessionKey> newest_;
    std::deque<std::uint64_t> superseded_;  ///< instances that lost to a later one, the latest last
};

}  // namespace splitvisor::vstore
