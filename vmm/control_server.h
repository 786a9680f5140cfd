#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "base/thread.h"

namespace splitvisor::vmm {

/// Answers lines on a Unix socket, each client on a thread of its own, so that a command that waits delays nobody else.
/// At most kMaxClients at once; a line of more than 64 KiB, or an answer that is not read, ends the connection.
class ControlServer {
  public:
    static constexpr std::size_t kMaxClients = 16;

    struct Answer {
        std::string text;                  ///< without newline
        std::function<void()> after_sent;  ///< may be empty
    };
    /// Called by any client's thread, several at once. Bounded in time: the destructor waits for it.
    using Respond = std::function<Answer(std::string_view line)>;

    static Result<std::unique_ptr<ControlServer>> start(const std::string& path, Respond respond);
    ~ControlServer();
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;

  private:
    struct Client {
        Fd fd;
        std::atomic<bool> done{false};
        Thread thread;  ///< last: ends before the descriptor closes
    };

    ControlServer(std::string path, Fd listener, EventFd stop, Respond respond);
    void accept_clients();
    void admit(Fd fd);
    void serve(const Fd& fd);
    [[nodiscard]] bool answer_lines(const Fd& fd, std::string& buffer);

    std::string path_;
    Fd listener_;
    EventFd stop_;
    Respond respond_;
    std::list<Client> clients_;  ///< the accepting thread's; of the destructor once that has ended
    Thread thread_;
};

}  // namespace splitvisor::vmm
