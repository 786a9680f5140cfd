#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/mapping.h"
#include "fabric/rdma_verbs.h"

namespace splitvisor::fabric {

/// Bytes in order over one reliable-connected queue pair, through rings of registered buffers.
///
/// Each SEND carries up to a buffer of bytes and, as its immediate value, how many buffers its sender has
/// posted again since it last said so: credits. Whoever has no credit does not send, so the peer's queue
/// never lacks a buffer. A SEND without bytes only brings credits. It needs no credit itself: at most two of
/// them can be unseen, for each brings at least half of the ring, and buffers beyond the ring wait for them.
///
/// Threads: write and wait_for_output by one, read and wait_for_input by one, finish by any. Whoever polls
/// the completion queue takes what is there, for the other as well; the other, where it sleeps, is woken.
/// Nothing is allocated after create.
class RdmaQueue {
  public:
    /// Makes the queue pair of a connection in the making and posts its receive buffers. `channel` must be
    /// the one of the identifier.
    static Result<std::unique_ptr<RdmaQueue>> create(CmChannel channel, CmId id);
    ~RdmaQueue();

    /// What to tell the peer, and what the peer told: before anything else is done. kCorrupt: no peer of
    /// ours.
    [[nodiscard]] RdmaHello hello() const;
    [[nodiscard]] Status take_hello(const std::optional<RdmaHello>& peer);

    [[nodiscard]] rdma_cm_id& id() { return *id_; }
    [[nodiscard]] rdma_event_channel& cm_channel() { return *channel_; }

    /// The bytes moved now; 0 where none can be, or where the queue has failed.
    [[nodiscard]] std::size_t write(std::span<const iovec> from);
    [[nodiscard]] std::size_t read(std::span<const iovec> into);
    /// True where read would give bytes, or the queue has failed.
    [[nodiscard]] bool input_ready();
    /// True where waiting is over because of room, bytes, a failure or finish; false once the deadline is.
    [[nodiscard]] bool wait_for_output(std::uint64_t deadline_ms);
    [[nodiscard]] bool wait_for_input(std::uint64_t deadline_ms);

    /// Why nothing moves any more; empty while the queue is good. What arrived before can still be read.
    [[nodiscard]] std::string_view failure() const { return failure_.load(); }

    /// Wakes both sides, gives the peer's adapter a moment to take what was written, disconnects. Final.
    void finish();

  private:
    struct Waiter {
        EventFd wake;
        bool sleeping = false;
    };
    struct Chunk {
        std::uint32_t buffer = 0;
        std::uint32_t bytes = 0;
    };
    enum class Side { kSender, kReceiver };

    RdmaQueue(CmChannel channel, CmId id, EventFd sender_wake, EventFd receiver_wake);
    [[nodiscard]] Status set_up();
    [[nodiscard]] Status create_queue_pair();
    [[nodiscard]] Status post_all_receives();
    void fail(const char* why);

    // With mutex_ held.
    void poll_completions();
    void take_completion(const ibv_wc& completion);
    void take_send(const ibv_wc& completion);
    void take_receive(const ibv_wc& completion);
    void post_receive(std::uint32_t buffer);
    bool post_send(std::size_t bytes, bool signalled);
    void return_credits();
    [[nodiscard]] bool ready(Side side) const;
    [[nodiscard]] bool can_send() const;
    void wake(Side side);

    [[nodiscard]] bool wait(Side side, std::uint64_t deadline_ms);
    [[nodiscard]] bool prepare_sleep(Side side);
    void end_sleep(Side side, bool completions);
    void take_cm_events();
    void disconnect();
    void linger();
    [[nodiscard]] std::byte* send_buffer(std::uint32_t slot) const;
    [[nodiscard]] std::byte* receive_buffer(std::uint32_t buffer) const;
    [[nodiscard]] Waiter& waiter(Side side) { return side == Side::kSender ? sender_ : receiver_; }

    // In the order of their making; released the other way round.
    const CmChannel channel_;
    const CmId id_;
    Mapping memory_;
    MemoryRegion region_;
    CompletionChannel completions_;
    CompletionQueue queue_;
    QueuePair pair_;

    // Fixed once connected.
    std::uint32_t buffers_ = 0;       ///< in each ring
    std::uint32_t inline_bytes_ = 0;  ///< what the device takes into the request itself
    std::uint32_t chunk_bytes_ = 0;   ///< what one SEND may carry: the peer's buffers and ours
    std::uint32_t peer_buffers_ = 0;

    std::atomic<bool> finished_{false};
    std::atomic<bool> disconnected_{false};
    std::atomic<const char*> failure_{""};

    std::mutex mutex_;  ///< over what follows; never held while anything waits
    Waiter sender_;
    Waiter receiver_;
    std::uint32_t credits_ = 0;    ///< of the peer's buffers
    std::uint32_t owed_ = 0;       ///< of ours, posted again and not told yet
    std::uint32_t next_slot_ = 0;  ///< of the send ring
    std::uint32_t slots_in_use_ = 0;
    std::uint32_t sends_in_flight_ = 0;
    std::uint32_t unsignalled_sends_ = 0;  ///< since the last that asks for a completion
    std::uint32_t unsignalled_slots_ = 0;
    std::vector<Chunk> arrived_;  ///< a ring: [first_, first_ + arrived_count_)
    std::uint32_t first_ = 0;
    std::uint32_t arrived_count_ = 0;
    std::size_t consumed_ = 0;  ///< the receiver's: of the first chunk
};

}  // namespace splitvisor::fabric
