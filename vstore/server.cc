#include "vstore/server.h"

#include <time.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"

namespace splitvisor::vstore {

/// Each has two threads and, at worst, the memory of its requests under way.
static constexpr std::size_t kMaxSessions = 1024;

Result<std::array<std::byte, 16>> read_boot_id()
{
    auto text = read_file("/proc/sys/kernel/random/boot_id", ByteCount{64});
    if (!text) return text.error();
    std::erase_if(*text, [](char c) { return c == '-' || c == '\n'; });
    const auto bytes = from_hex(*text);
    if (!bytes) return bytes.error().in("boot_id");
    if (bytes->size() != 16) return Error{ErrorCode::kInvalid, "boot_id: not 16 bytes"};
    return load<std::array<std::byte, 16>>(std::as_bytes(std::span{*bytes}));
}

Server::Server(VolumeStore& store, std::unique_ptr<fabric::Listener> listener, const ServingOptions& options)
    : store_{store}, listener_{std::move(listener)}, options_{options}
{
    accepting_ = Thread{"volume-accept", [this] { accept_connections(); }};
}

Result<std::unique_ptr<Server>> Server::start(VolumeStore& store, const fabric::Endpoint& endpoint,
                                              const ServingOptions& options)
{
    auto listener = fabric::listen(endpoint);
    if (!listener) return listener.error();
    return std::unique_ptr<Server>{new Server{store, std::move(*listener), options}};
}

Server::~Server()
{
    stopping_ = true;
    listener_->shutdown();
    accepting_.join();
    for (auto& running : sessions_) running.session->fence();
    sessions_.clear();
}

void Server::accept_connections()
{
    LogLimit failures;
    while (!stopping_) {
        auto connection = listener_->accept();
        reap_ended_sessions();
        if (connection) {
            begin_session(std::move(*connection));
            continue;
        }
        if (stopping_) return;
        if (failures.allow()) log_warning("connection not accepted", field("error", connection.error()));
        const timespec pause{.tv_sec = 0, .tv_nsec = 50'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

void Server::begin_session(std::unique_ptr<fabric::Connection> connection)
{
    if (sessions_.size() >= kMaxSessions) {
        log_warning("connection refused",
                    field("peer", connection->peer()) + field("sessions", sessions_.size()));
        return;
    }
    auto& running = sessions_.emplace_back();
    running.session = std::make_unique<Session>(std::move(connection), store_, options_, statistics_);
    session_count_.fetch_add(1, std::memory_order_relaxed);
    running.thread = Thread{"volume-serve", [this, &running] {
                                running.session->run();
                                session_count_.fetch_sub(1, std::memory_order_relaxed);
                                running.ended = true;
                            }};
}

void Server::reap_ended_sessions()
{
    std::erase_if(sessions_, [](const Running& running) { return running.ended.load(); });
}

}  // namespace splitvisor::vstore
