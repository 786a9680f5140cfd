#include "remote-mem/server.h"

#include <system_error>

#include "remote-mem/service.h"

namespace splitvisor::remote_mem {

Result<std::unique_ptr<DataServer>> DataServer::start(const ServerOptions& options, RegionStore& store)
{
    auto listener = fabric::listen(options.endpoint, options.message_limit_ms);
    if (!listener) return listener.error();
    std::unique_ptr<DataServer> server{new DataServer{options, store, std::move(*listener)}};
    server->acceptor_ = Thread{"accept", [&own = *server] { own.accept_peers(); }};
    return server;
}

DataServer::DataServer(const ServerOptions& options, RegionStore& store,
                       std::unique_ptr<fabric::Listener> listener)
    : options_{options}, store_{store}, listener_{std::move(listener)}
{
}

DataServer::~DataServer()
{
    listener_->shutdown();
    acceptor_.join();
    {
        const std::lock_guard lock{mutex_};
        for (auto& peer : peers_) {
            if (peer.connection != nullptr) peer.connection->shutdown();
        }
    }
    peers_.clear();
}

void DataServer::accept_peers()
{
    while (true) {
        auto connection = listener_->accept();
        if (!connection && connection.error().code() == ErrorCode::kUnavailable) return;
        remove_ended_peers();
        if (!connection) {
            if (accept_log_.allow())
                log_warning("no connection accepted", field("reason", connection.error()));
        } else if (connection_count_.load() >= options_.max_connections) {
            if (accept_log_.allow()) {
                log_warning("connection refused",
                            field("peer", (*connection)->peer()) +
                                field("limit", std::uint64_t{options_.max_connections}));
            }
        } else {
            add_peer(std::move(*connection));
        }
    }
}

void DataServer::add_peer(std::unique_ptr<fabric::Connection> connection)
{
    const std::lock_guard lock{mutex_};
    auto& peer = peers_.emplace_back();
    peer.connection = std::move(connection);
    connection_count_.fetch_add(1);
    try {
        peer.thread = Thread{"serve", [this, &peer, door = peer.connection] {
                                 Service service{store_, *door};
                                 end_peer(peer, service.serve(options_.admission_ms));
                             }};
    } catch (const std::system_error& error) {
        // The system has no thread for it. The peer sees its connection end and comes again.
        if (accept_log_.allow()) log_warning("connection refused", field("reason", error.what()));
        connection_count_.fetch_sub(1);
        peers_.pop_back();
    }
}

/// The connection is over now; its thread is joined when the next connection comes or the server goes.
void DataServer::end_peer(Peer& peer, const Error& reason)
{
    peer.connection->shutdown();
    connection_count_.fetch_sub(1);
    const std::lock_guard lock{mutex_};
    if (end_log_.allow()) {
        log_info("connection ended", field("peer", peer.connection->peer()) + field("reason", reason));
    }
    peer.connection.reset();
    peer.ended = true;
}

void DataServer::remove_ended_peers()
{
    std::list<Peer> ended;
    const std::lock_guard lock{mutex_};
    for (auto peer = peers_.begin(); peer != peers_.end();) {
        const auto next = std::next(peer);
        if (peer->ended) ended.splice(ended.end(), peers_, peer);
        peer = next;
    }
}

}  // namespace splitvisor::remote_mem
