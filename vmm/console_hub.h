#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "base/thread.h"
#include "vmm/devices/serial16550.h"

namespace splitvisor::vmm {

/// Carries the serial console between the guest, a log file and any number of clients of a Unix socket, on one thread.
/// A new client first gets the last 64 KiB of output. A client that does not read is dropped, never waited for; what a
/// guest writes faster than the log takes it is lost beyond 1 MiB, and counted. The log is renamed to "<log>.1" each
/// time it reaches its size limit, so that a guest can't fill the disk.
class ConsoleHub final : public ConsoleOutput {
  public:
    struct Paths {
        std::string socket;
        std::string log;
        ByteCount log_limit{64 * kMiB};
    };
    /// Takes what the guest's receiver has room for and returns how much that was.
    using Receiver = std::function<std::size_t(std::span<const std::byte>)>;

    static Result<std::unique_ptr<ConsoleHub>> start(const Paths& paths);
    ~ConsoleHub() override;
    ConsoleHub(const ConsoleHub&) = delete;
    ConsoleHub& operator=(const ConsoleHub&) = delete;

    /// Output of the guest. Any thread; never blocks.
    void write(std::span<const std::byte> bytes) override;

    /// Where input goes from now on; an empty function holds it back. When this returns, the earlier one is not and will
    /// not be called. Not from within a receiver.
    void set_receiver(Receiver receiver);
    /// The receiver has room again. Any thread; takes no lock.
    void receiver_has_room() const { wake_.signal(); }

    /// Waits until all output so far is in the log and has been offered to the clients, at most `deadline_ms`.
    void flush(std::uint64_t deadline_ms);

    [[nodiscard]] std::uint64_t lost_bytes() const;

  private:
    struct Client {
        Fd fd;
        std::string unsent;
    };

    ConsoleHub(Paths paths, Fd listener, Fd log, std::uint64_t log_bytes, EventFd wake);
    void run();
    [[nodiscard]] bool wait_for_work(std::string& output);
    void distribute(std::string_view output);
    void append_to_log(std::string_view output);
    void remember(std::string_view output);
    void accept_clients();
    /// False where the client is gone.
    [[nodiscard]] bool serve(Client& client, short events);
    [[nodiscard]] static bool send_unsent(Client& client);
    void feed_receiver();

    Paths paths_;
    Fd listener_;
    Fd log_;
    std::uint64_t log_bytes_;
    EventFd wake_;

    // The hub's thread only.
    std::list<Client> clients_;
    std::string scrollback_;
    std::string input_;
    bool log_failed_ = false;

    std::mutex receiver_mutex_;
    Receiver receiver_;

    mutable std::mutex mutex_;  ///< guards what follows
    std::condition_variable written_;
    std::string pending_;
    std::uint64_t accepted_bytes_ = 0;
    std::uint64_t distributed_bytes_ = 0;
    std::uint64_t lost_bytes_ = 0;
    bool stop_ = false;

    Thread thread_;  ///< last: ends before the rest goes
};

}  // namespace splitvisor::vmm
