#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/thread.h"
#include "base/units.h"
#include "fabric/connection.h"
#include "vstore/block_backend.h"
#include "vstore/flight_table.h"
#include "vstore/protocol.h"
#include "vstore/volume_link.h"

namespace splitvisor::vstore {

enum class VolumeState { kConnected, kReconnecting, kFailed };

struct RemoteVolumeOptions {
    std::string name;  ///< for messages: the disk's name within its vNode
    fabric::Endpoint endpoint;
    VolumeId volume{};
    Capability capability{};
    Epoch epoch{};
    bool read_only = false;
    ByteCount size{};  ///< what the volume must have; 0: whatever it has

    /// How long open() tries to reach a monitor that is away.
    std::uint64_t open_patience_ms = 10'000;
    /// A monitor that answers nothing, not even pings, for this long while requests wait is taken to be gone.
    std::uint64_t silence_ms = 15'000;

    /// Called by a thread of the volume at each change, with the reason; may be empty. It must not destroy
    /// the volume. A failure is told before the requests that it ends are done.
    std::function<void(VolumeState, const std::string& reason)> on_state;
};

/// A volume of an sComponent. When the connection is lost, or the monitor is killed and started again,
/// requests in flight are sent anew for as long as it takes. A flight's buffers are copied through memory of
/// the client, so a guest that changes a buffer under way cannot break a checksum.
///
/// The volume fails for good, and every request with it, when the monitor says that it is not ours (kDenied,
/// kStale, kNotFound), or with kIo when the sComponent lost its power, and with it writes that it had
/// acknowledged but that were never flushed: the guest would otherwise read older data than it wrote (I2).
///
/// Threads: two of its own. One receives, calls `done`, and reconnects. The other sends what the first may
/// not, since receiving must never wait for sending. submit() sends in the caller's thread where it can.
class RemoteVolume final : public BlockBackend {
  public:
    static Result<std::unique_ptr<RemoteVolume>> open(RemoteVolumeOptions options);
    RemoteVolume(const RemoteVolume&) = delete;
    RemoteVolume& operator=(const RemoteVolume&) = delete;
    ~RemoteVolume() override;

    void submit(BlockRequest request) override;
    [[nodiscard]] ByteCount capacity() const override { return capacity_; }
    [[nodiscard]] bool read_only() const override { return options_.read_only; }

    /// Of all connections so far, the first one included.
    [[nodiscard]] std::uint64_t connection_count() const
    {
        return connections_.load(std::memory_order_relaxed);
    }

  private:
    static constexpr std::uint64_t kFirstPauseMs = 20;
    enum class Liveness { kAlive, kSilent };

    explicit RemoteVolume(RemoteVolumeOptions options);
    Status connect_first();
    void start_threads();
    [[nodiscard]] VolumeAddress address() const;
    Result<VolumeLink> try_link();
    Status adopt(VolumeLink link);
    Status check_identity(const IdentityHead& identity) const;

    void receive_replies();
    void serve_connection(fabric::Connection& connection);
    [[nodiscard]] bool take_reply(fabric::Connection& connection, const fabric::Incoming& incoming);
    [[nodiscard]] bool take_data(fabric::Connection& connection, const fabric::Incoming& incoming,
                                 const Flight& flight);
    void finish_piece(Flight& flight);
    void finish(Flight& flight, const Status& status);
    [[nodiscard]] Liveness check_liveness(std::uint64_t& last_heard_ms);
    void lose_connection(const std::string& reason);
    [[nodiscard]] bool reconnect();
    [[nodiscard]] bool pause(std::uint64_t milliseconds);

    Status check(const BlockRequest& request) const;
    void pump();
    void pump_in_background();
    void send_ping(std::unique_lock<std::mutex>& lock);
    void send_next(std::unique_lock<std::mutex>& lock);
    void send_message(std::unique_lock<std::mutex>& lock, const fabric::Message& message);
    [[nodiscard]] bool has_work() const { return connected_ && (ping_due_ || table_.has_queued()); }

    void fail(const Error& error);
    void end_all(const Error& error);
    void report(VolumeState state, const std::string& reason) const;

    const RemoteVolumeOptions options_;
    const std::uint64_t instance_;
    ByteCount capacity_{};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    FlightTable table_;
    std::shared_ptr<fabric::Connection> connection_;  ///< also while it is being opened, to be shut down
    SessionKey session_;
    std::uint64_t generation_ = 0;  ///< grows when a connection is lost
    bool connected_ = false;
    bool stopping_ = false;
    bool pumping_ = false;  ///< one thread at a time sends
    bool ping_due_ = false;
    std::optional<Error> failure_;
    std::array<std::byte, 16> boot_id_{};
    bool write_through_ = false;
    std::uint64_t acknowledged_changes_ = 0;
    std::uint64_t durable_changes_ = 0;

    std::atomic<std::uint64_t> connections_{0};
    std::atomic<std::thread::id> receiver_{};
    std::vector<std::byte> sending_;    ///< the pumping thread's
    std::vector<std::byte> receiving_;  ///< the receiving thread's
    /// The receiving thread's: before the next attempt to connect. A connection that answers nothing shortens
    /// it not.
    std::uint64_t pause_ms_ = kFirstPauseMs;

    Thread background_;
    Thread receiving_thread_;
};

}  // namespace splitvisor::vstore
