#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "vmm/virtio/block_request.h"
#include "vmm/virtio/virtio_device.h"
#include "vmm/virtio/worker.h"
#include "vstore/block_backend.h"

namespace splitvisor::vmm::virtio {

/// What the queues of one disk share. Thread-safe.
struct BlockState {
    std::atomic<std::uint64_t> capacity_sectors{0};
    bool read_only = false;
    std::string id;  ///< at most kBlockIdBytes

    std::atomic<std::uint64_t> reads{0};
    std::atomic<std::uint64_t> writes{0};
    std::atomic<std::uint64_t> flushes{0};
    std::atomic<std::uint64_t> discards{0};  ///< write-zeroes included
    std::atomic<std::uint64_t> read_bytes{0};
    std::atomic<std::uint64_t> written_bytes{0};
    std::atomic<std::uint64_t> errors{0};      ///< answers other than OK
    std::atomic<std::uint64_t> bad_chains{0};
    std::atomic<std::uint64_t> dropped{0};     ///< completions that came after a reset
};

class BlockInbox;

/// A request at the back end. Its data are in a buffer of our own: guest RAM is touched by the worker only, for a
/// thread of the back end that waited for an absent page could be the one that must bring it; and a request may outlive
/// a reset, after which the guest's buffers are no longer its.
struct BlockJob {
    std::shared_ptr<BlockInbox> inbox;
    std::uint64_t activation = 0;
    std::uint16_t head = 0;
    vstore::BlockKind kind = vstore::BlockKind::kFlush;
    std::uint64_t length = 0;
    std::unique_ptr<std::byte[]> buffer;
    std::size_t buffer_bytes = 0;
    iovec vector{};
    Status result;
};

/// Where the back end's threads leave completed jobs. Outlives the queue while jobs are out.
class BlockInbox {
  public:
    static Result<std::shared_ptr<BlockInbox>> create();

    /// Any thread. Drops the job where the inbox is closed.
    void deliver(std::unique_ptr<BlockJob> job);
    /// The worker: all that came, none twice.
    void take(std::vector<std::unique_ptr<BlockJob>>& into);
    void close();
    [[nodiscard]] int fd() const { return arrived_.fd(); }

  private:
    explicit BlockInbox(EventFd arrived) : arrived_{std::move(arrived)} {}

    EventFd arrived_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<BlockJob>> jobs_;  ///< at most vstore::kMaxInFlight
    bool closed_ = false;
};

/// One request queue of a disk and the thread that serves it.
///
/// Requests of an activation are submitted only when those of the one before have all been completed: a write that
/// a reset has orphaned must not land after the next driver has begun to read.
class BlockQueue {
  public:
    static Result<std::unique_ptr<BlockQueue>> create(vstore::BlockBackend& backend, BlockState& state,
                                                      std::string thread_name);
    ~BlockQueue();

    void start(ActiveQueue queue, bool write_through, DeviceInterrupt& interrupt);
    /// What is in flight is dropped when it completes.
    void stop();

  private:
    BlockQueue(vstore::BlockBackend& backend, BlockState& state, std::shared_ptr<BlockInbox> inbox,
               std::unique_ptr<Worker> worker);

    void serve();
    void finish_jobs();
    void finish(BlockJob& job);
    void take_requests();
    void start_request(std::uint16_t head);
    void answer(std::uint16_t head, BlockStatus status);
    void answer_id(std::uint16_t head);
    void submit_transfer(std::uint16_t head, const ParsedBlockRequest& request);
    void submit(std::unique_ptr<BlockJob> job, std::uint64_t offset);
    [[nodiscard]] std::unique_ptr<BlockJob> new_job(std::uint16_t head, vstore::BlockKind kind, std::uint64_t length);
    void retire(std::unique_ptr<BlockJob> job);

    vstore::BlockBackend& backend_;
    BlockState& state_;
    std::shared_ptr<BlockInbox> inbox_;

    // All below belong to the worker while it serves, and to start() and stop() while it rests.
    std::uint64_t activation_ = 0;
    std::optional<ActiveQueue> queue_;
    DeviceInterrupt* interrupt_ = nullptr;
    bool write_through_ = false;
    std::vector<Chain> chains_;  ///< by head, for the chains in flight
    Chain popped_;
    std::uint64_t jobs_out_ = 0;   ///< at the back end or in the inbox, of any activation
    std::uint64_t bytes_out_ = 0;  ///< of their buffers
    std::uint64_t orphans_ = 0;    ///< of jobs_out_, those of earlier activations
    std::vector<std::unique_ptr<BlockJob>> arrived_;
    std::vector<std::unique_ptr<BlockJob>> spare_;
    LogLimit log_limit_;

    std::unique_ptr<Worker> worker_;  ///< last: it stops before the rest goes
};

}  // namespace splitvisor::vmm::virtio
