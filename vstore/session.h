#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "fabric/connection.h"
#include "vstore/io_engine.h"
#include "vstore/protocol.h"
#include "vstore/session_gate.h"
#include "vstore/volume_store.h"

namespace splitvisor::vstore {

struct ServingOptions {
    std::array<std::byte, 16> boot_id{};  ///< of this machine's kernel
    bool write_through = false;           ///< acknowledge writes only when they are durable
    bool fallocate = true;                ///< false: as on a file system without it
};

/// Of all sessions since the monitor started. Thread-safe.
struct ServingStatistics {
    std::atomic<std::uint64_t> read_requests{0};
    std::atomic<std::uint64_t> read_bytes{0};
    std::atomic<std::uint64_t> write_requests{0};
    std::atomic<std::uint64_t> write_bytes{0};
    std::atomic<std::uint64_t> flushes{0};
    std::atomic<std::uint64_t> refused_requests{0};
};

/// One connection at the storage monitor: opens a volume, then serves its requests, many at once, until it
/// ends.
///
/// Threads: run() is the session's own and receives; a second thread waits for the engine and replies.
/// Requests that the page cache satisfies at once are answered by the first. A client must not let its
/// receiving wait for its sending, or both sides may wait for each other.
class Session final : public Fenceable {
  public:
    Session(std::unique_ptr<fabric::Connection> connection, VolumeStore& store, const ServingOptions& options,
            ServingStatistics& statistics);

    /// Returns when the connection has ended and no operation is under way.
    void run();

    void fence() override { connection_->shutdown(); }

  private:
    /// A request under way.
    struct Served : IoOperation {
        std::uint64_t request_id = 0;
        RequestKind request_kind{};
        std::vector<std::byte> data;
    };

    enum class Opening { kIdentified, kOpened };
    [[nodiscard]] bool open();
    Result<Opening> take_first(const fabric::Incoming& incoming);
    Status open_volume(const RequestHead& head);
    Status identify(std::uint64_t request_id, const Request& request);
    Status reply_identity(std::uint64_t request_id, RequestKind kind, const Volume& volume);
    void serve();
    [[nodiscard]] bool take(const fabric::Incoming& incoming);
    Status check(const Request& request) const;
    [[nodiscard]] bool begin(const fabric::Incoming& incoming, const Request& request);
    void complete_operations();
    void finish(Served& served);
    Status outcome_of(const Served& served);
    void count(const Served& served);

    Served& acquire(const Request& request);
    void release(Served& served);
    void wait_until_idle();

    Status reply(std::uint64_t request_id, RequestKind kind, std::span<const std::byte> head,
                 std::span<const std::byte> data);
    Status reply_error(std::uint64_t request_id, RequestKind kind, const Error& error);
    /// The request is answered with the error; the connection goes on.
    [[nodiscard]] bool refuse(const fabric::Incoming& incoming, const Error& error);

    const std::unique_ptr<fabric::Connection> connection_;
    VolumeStore& store_;
    const ServingOptions options_;
    ServingStatistics& statistics_;

    // Set by open() and then constant.
    std::shared_ptr<Volume> volume_;
    SessionKey key_;
    bool read_only_ = false;
    Fd file_;
    std::unique_ptr<IoEngine> engine_;

    LogLimit refusals_;  ///< the receiving thread's

    std::mutex sending_;  ///< held while a reply goes out; nothing else is locked meanwhile

    std::mutex mutex_;
    std::condition_variable released_;
    std::vector<Served> served_;
    std::vector<Served*> free_;
    std::size_t bytes_under_way_ = 0;
    bool sync_under_way_ = false;

    bool ending_ = false;  ///< under mutex_: the completing thread ends at the next wake-up
};

}  // namespace splitvisor::vstore
