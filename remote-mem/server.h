#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "base/idle_latency.h"
#include "base/log.h"
#include "base/result.h"
#include "base/thread.h"
#include "fabric/connection.h"
#include "remote-mem/store.h"

namespace splitvisor::remote_mem {

struct ServerOptions {
    fabric::Endpoint endpoint;
    std::uint32_t max_connections = 1024;
    /// A peer must have made an allowed request within this time; then it may be silent for as long as it
    /// likes.
    int admission_ms = 10'000;
    /// See fabric::kMessageLimitMs.
    int message_limit_ms = fabric::kMessageLimitMs;
};

/// The data server of a memory monitor: answers VMMs from a RegionStore, with a thread a connection. A bad
/// request gets an error and the connection goes on; bytes that are no message end it.
class DataServer {
  public:
    /// The store outlives the server.
    static Result<std::unique_ptr<DataServer>> start(const ServerOptions& options, RegionStore& store);
    /// Ends all connections and joins their threads.
    ~DataServer();

    [[nodiscard]] fabric::Endpoint endpoint() const { return listener_->endpoint(); }
    [[nodiscard]] std::uint32_t connections() const { return connection_count_.load(); }

  private:
    struct Peer {
        std::shared_ptr<fabric::Connection> connection;  ///< reset by its thread at the end; under mutex_
        bool ended = false;                              ///< under mutex_
        Thread thread;
    };

    DataServer(const ServerOptions& options, RegionStore& store, std::unique_ptr<fabric::Listener> listener);
    void accept_peers();
    void add_peer(std::unique_ptr<fabric::Connection> connection);
    void remove_ended_peers();
    void end_peer(Peer& peer, const Error& reason);

    const ServerOptions options_;
    RegionStore& store_;
    const std::unique_ptr<fabric::Listener> listener_;
    std::atomic<std::uint32_t> connection_count_{0};
    std::mutex mutex_;
    std::list<Peer> peers_;  ///< changed by the accepting thread only, until it is joined
    LogLimit end_log_;       ///< under mutex_
    LogLimit accept_log_;    ///< the accepting thread's
    IdleLatency idle_latency_{[this] {
        const auto stats = store_.stats();
        return stats.pages_read + stats.pages_written;
    }};
    Thread acceptor_;
};

}  // namespace splitvisor::remote_mem
