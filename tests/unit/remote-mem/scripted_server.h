#pragma once

#include <functional>
#include <list>
#include <mutex>

#include "base/log.h"
#include "base/thread.h"
#include "fabric/connection.h"

namespace splitvisor::remote_mem {

/// A server of the test's own making: `script` plays each connection, told its number, until it ends.
class ScriptedServer {
  public:
    using Script = std::function<void(fabric::Connection&, int number)>;

    explicit ScriptedServer(Script script) : script_{std::move(script)}
    {
        listener_ = std::move(fabric::listen(fabric::Endpoint::parse("tcp:127.0.0.1:0").value())).value();
        acceptor_ = Thread{"scripted", [this] { accept(); }};
    }
    ~ScriptedServer()
    {
        listener_->shutdown();
        acceptor_.join();
        for (auto& peer : peers_) peer.connection->shutdown();
        peers_.clear();
    }
    [[nodiscard]] fabric::Endpoint endpoint() const { return listener_->endpoint(); }

  private:
    struct Peer {
        std::unique_ptr<fabric::Connection> connection;
        Thread thread;
    };

    void accept()
    {
        for (int number = 0;; ++number) {
            auto connection = listener_->accept();
            if (!connection) return;
            auto& peer = peers_.emplace_back();
            peer.connection = std::move(*connection);
            peer.thread = Thread{"script", [this, &peer, number] {
                                     script_(*peer.connection, number);
                                     peer.connection->shutdown();
                                 }};
        }
    }

    const Script script_;
    std::unique_ptr<fabric::Listener> listener_;
    std::list<Peer> peers_;
    Thread acceptor_;
};

/// Takes everything and says nothing.
inline void hang(fabric::Connection& connection)
{
    while (true) {
        if (!connection.receive(-1) || !connection.skip_data()) return;
    }
}

}  // namespace splitvisor::remote_mem
