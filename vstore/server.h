#pragma once

#include <atomic>
#include <cstddef>
#include <list>
#include <memory>

#include "base/result.h"
#include "base/thread.h"
#include "fabric/connection.h"
#include "vstore/session.h"
#include "vstore/volume_store.h"

namespace splitvisor::vstore {

/// The id of this machine's running kernel.
Result<std::array<std::byte, 16>> read_boot_id();

/// Serves the volumes of a store over the fabric: a session, of two threads, for each connection.
/// Thread-safe.
class Server {
  public:
    /// The store outlives the server.
    static Result<std::unique_ptr<Server>> start(VolumeStore& store, const fabric::Endpoint& endpoint,
                                                 const ServingOptions& options);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    /// Ends every session after what it has begun, and waits for that.
    ~Server();

    /// Where it really listens.
    [[nodiscard]] fabric::Endpoint endpoint() const { return listener_->endpoint(); }
    [[nodiscard]] std::size_t session_count() const { return session_count_.load(std::memory_order_relaxed); }
    [[nodiscard]] const ServingStatistics& statistics() const { return statistics_; }

  private:
    struct Running {
        std::unique_ptr<Session> session;
        std::atomic<bool> ended{false};
        Thread thread;
    };

    Server(VolumeStore& store, std::unique_ptr<fabric::Listener> listener, const ServingOptions& options);
    void accept_connections();
    void begin_session(std::unique_ptr<fabric::Connection> connection);
    void reap_ended_sessions();

    VolumeStore& store_;
    const std::unique_ptr<fabric::Listener> listener_;
    const ServingOptions options_;
    ServingStatistics statistics_;
    std::atomic<std::size_t> session_count_{0};
    std::atomic<bool> stopping_{false};
    std::list<Running> sessions_;  ///< the accepting thread's, and the destructor's after it
    Thread accepting_;
};

}  // namespace splitvisor::vstore
