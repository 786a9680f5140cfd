#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "vmm/virtio/block_queue.h"

namespace splitvisor::vmm::virtio {

struct BlockCounters {
    std::uint64_t reads = 0;
    std::uint64_t writes = 0;
    std::uint64_t flushes = 0;
    std::uint64_t discards = 0;  ///< write-zeroes included
    std::uint64_t read_bytes = 0;
    std::uint64_t written_bytes = 0;
    std::uint64_t errors = 0;
    std::uint64_t bad_chains = 0;
    std::uint64_t dropped = 0;  ///< completions that came after a reset
};

/// A disk (virtio 1.2, section 5.2). Requests go to a block back end; a thread of its own serves the queue.
///
/// A driver that does not take VIRTIO_BLK_F_FLUSH gets a write-through disk: each write is followed by a flush.
/// A write to a read-only back end is refused whatever was negotiated.
class Block final : public VirtioDevice {
  public:
    /// `backend` outlives the disk. `id` is what GET_ID answers, cut to 20 bytes. Errors: kIo.
    static Result<std::unique_ptr<Block>> create(vstore::BlockBackend& backend, std::string id);
    ~Block() override;

    [[nodiscard]] DeviceId id() const override { return DeviceId::kBlock; }
    [[nodiscard]] std::uint64_t features() const override;
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const override;
    void read_config(std::uint32_t offset, std::span<std::byte> into) const override;
    [[nodiscard]] std::uint32_t config_generation() const override { return generation_.load(); }
    void activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt) override;
    void reset() override;

    /// The volume was resized: tells the driver. Any thread.
    void set_capacity(ByteCount capacity);

    [[nodiscard]] BlockCounters counters() const;

  private:
    Block(vstore::BlockBackend& backend, std::string id);

    BlockState state_;
    std::atomic<std::uint32_t> generation_{0};
    std::mutex interrupt_mutex_;  ///< guards the pointer
    DeviceInterrupt* interrupt_ = nullptr;
    std::unique_ptr<BlockQueue> queue_;
};

}  // namespace splitvisor::vmm::virtio
