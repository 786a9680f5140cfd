#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace splitvisor::controller {

/// One end of a pipe, as the pipe sees it: a WebSocket, a gRPC stream. Thread-safe; never blocks.
class ByteEnd {
  public:
    virtual ~ByteEnd() = default;
    /// Sends the bytes on and calls `taken` when it is ready for more. Not called again before that.
    virtual void deliver(std::string bytes, std::function<void()> taken) = 0;
    virtual void close(const std::string& reason) = 0;
};

/// Joins two ends that each have one message at a time under way, so that a slow one holds up the other and nothing
/// piles up between them. Either end may come later than the first bytes for it. Thread-safe.
class BytePipe {
  public:
    enum class Side : std::size_t { kUser, kConsole };

    void attach(Side side, std::shared_ptr<ByteEnd> end);
    /// Passes bytes from one side to the other. The caller passes the next ones after `taken`, which is not called any
    /// more once the pipe is closed.
    void pass(Side from, std::string bytes, std::function<void()> taken);
    /// Closes both ends, now or when they are attached.
    void close(const std::string& reason);

  private:
    struct Waiting {
        std::string bytes;
        std::function<void()> taken;
    };
    struct End {
        std::shared_ptr<ByteEnd> end;
        std::optional<Waiting> waiting;  ///< for this end, until it is attached
    };

    End& at(Side side) { return ends_.at(static_cast<std::size_t>(side)); }

    std::mutex mutex_;
    std::array<End, 2> ends_;
    std::optional<std::string> closed_;
};

}  // namespace splitvisor::controller
