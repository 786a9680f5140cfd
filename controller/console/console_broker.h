#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "controller/components/component_hub.h"
#include "controller/console/byte_pipe.h"

namespace splitvisor::controller {

/// Brings a user who wants a console together with the stream that the vNode's pComponent opens for it. Thread-safe.
class ConsoleBroker {
  public:
    static constexpr std::size_t kMaxWaiting = 256;
    static constexpr std::uint64_t kArrivalMs = 30'000;

    explicit ConsoleBroker(std::uint64_t arrival_ms = kArrivalMs) : arrival_ms_{arrival_ms} {}

    /// Asks the pComponent for the vNode's console. The user's end is attached to the pipe by the caller.
    [[nodiscard]] Result<std::shared_ptr<BytePipe>> open(ComponentHub& hub, const std::string& component,
                                                         const std::string& vnode);

    /// A stream has arrived: the pipe it belongs to, once; nullptr for a session nobody waits for.
    [[nodiscard]] std::shared_ptr<BytePipe> arrived(const std::string& session);

    /// Closes all pipes whose stream has not arrived.
    void close_all();

  private:
    struct Waiting {
        std::shared_ptr<BytePipe> pipe;
        std::uint64_t since_ms = 0;
    };
    /// Users whose pComponent promised a console and did not open it hear so when the next console is opened.
    void close_stale();

    const std::uint64_t arrival_ms_;
    std::mutex mutex_;
    std::map<std::string, Waiting> waiting_;
};

}  // namespace splitvisor::controller
