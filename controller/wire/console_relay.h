#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace grpc {
class Channel;
}

namespace splitvisor::wire {

/// The component's side of attached consoles: carries bytes between a VMM's console socket and a stream to the
/// controller, until either ends. Thread-safe.
class ConsoleRelays {
  public:
    static constexpr std::size_t kMaxRelays = 64;

    explicit ConsoleRelays(std::shared_ptr<grpc::Channel> channel);
    /// Ends all relays.
    ~ConsoleRelays();

    /// `console` is a connected stream socket.
    Status open(Fd console, const std::string& session);

  private:
    class Relay;
    void remove_ended();

    const std::shared_ptr<grpc::Channel> channel_;
    std::mutex mutex_;
    std::list<std::unique_ptr<Relay>> relays_;
};

}  // namespace splitvisor::wire
