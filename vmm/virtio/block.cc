#include "vmm/virtio/block.h"

#include <array>
#include <utility>

namespace splitvisor::vmm::virtio {

namespace {

/// Section 5.2.3.
constexpr std::uint64_t kFeatureSizeMax = 1u << 1;
constexpr std::uint64_t kFeatureSegMax = 1u << 2;
constexpr std::uint64_t kFeatureReadOnly = 1u << 5;
constexpr std::uint64_t kFeatureBlockSize = 1u << 6;
constexpr std::uint64_t kFeatureFlush = 1u << 9;
constexpr std::uint64_t kFeatureDiscard = 1u << 13;
constexpr std::uint64_t kFeatureWriteZeroes = 1u << 14;

/// Section 5.2.4, up to and including what WRITE_ZEROES needs.
struct BlockConfig {
    std::uint64_t capacity = 0;  ///< sectors
    std::uint32_t size_max = kSegmentBytesMax;
    std::uint32_t seg_max = kSegmentsMax;
    std::uint16_t cylinders = 0;
    std::uint8_t heads = 0;
    std::uint8_t sectors = 0;
    std::uint32_t blk_size = kSectorBytes;
    std::uint64_t topology = 0;
    std::uint8_t writeback = 0;
    std::uint8_t unused0 = 0;
    std::uint16_t num_queues = 1;
    std::uint32_t max_discard_sectors = kDiscardSectorsMax;
    std::uint32_t max_discard_seg = 1;
    std::uint32_t discard_sector_alignment = 1;
    std::uint32_t max_write_zeroes_sectors = kDiscardSectorsMax;
    std::uint32_t max_write_zeroes_seg = 1;
    std::uint8_t write_zeroes_may_unmap = 1;
    std::array<std::uint8_t, 7> unused1{};
};
static_assert(offsetof(BlockConfig, blk_size) == 20);
static_assert(offsetof(BlockConfig, max_discard_sectors) == 36);
static_assert(offsetof(BlockConfig, write_zeroes_may_unmap) == 56);
static_assert(sizeof(BlockConfig) == 64);

constexpr std::array<std::uint16_t, 1> kQueueSizes{kBlockQueueSize};
static_assert(kBlockQueueSize <= vstore::kMaxInFlight);

}  // namespace

Result<std::unique_ptr<Block>> Block::create(vstore::BlockBackend& backend, std::string id)
{
    std::unique_ptr<Block> block{new Block{backend, std::move(id)}};
    auto queue = BlockQueue::create(backend, block->state_, "virtio-blk");
    if (!queue) return queue.error();
    block->queue_ = std::move(*queue);
    return block;
}

Block::Block(vstore::BlockBackend& backend, std::string id)
{
    state_.capacity_sectors = backend.capacity().value() / kSectorBytes;
    state_.read_only = backend.read_only();
    state_.id = std::move(id);
    if (state_.id.size() > kBlockIdBytes) state_.id.resize(kBlockIdBytes);
}

Block::~Block() { reset(); }

std::uint64_t Block::features() const
{
    const auto common = kCommonFeatures | kFeatureSizeMax | kFeatureSegMax | kFeatureBlockSize | kFeatureFlush;
    return common | (state_.read_only ? kFeatureReadOnly : kFeatureDiscard | kFeatureWriteZeroes);
}

std::span<const std::uint16_t> Block::queue_sizes() const { return kQueueSizes; }

void Block::read_config(std::uint32_t offset, std::span<std::byte> into) const
{
    BlockConfig config;
    config.capacity = state_.capacity_sectors.load();
    read_config_bytes(bytes_of(config), offset, into);
}

void Block::activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt)
{
    {
        const std::scoped_lock lock{interrupt_mutex_};
        interrupt_ = &interrupt;
    }
    const bool write_through = (features & kFeatureFlush) == 0;
    for (auto& queue : queues) {
        if (queue.index == 0) queue_->start(std::move(queue), write_through, interrupt);
    }
}

void Block::reset()
{
    {
        const std::scoped_lock lock{interrupt_mutex_};
        interrupt_ = nullptr;
    }
    if (queue_) queue_->stop();
}

void Block::set_capacity(ByteCount capacity)
{
    state_.capacity_sectors = capacity.value() / kSectorBytes;
    ++generation_;
    const std::scoped_lock lock{interrupt_mutex_};
    if (interrupt_ != nullptr) interrupt_->configuration_changed();
}

BlockCounters Block::counters() const
{
    return {.reads = state_.reads.load(),
            .writes = state_.writes.load(),
            .flushes = state_.flushes.load(),
            .discards = state_.discards.load(),
            .read_bytes = state_.read_bytes.load(),
            .written_bytes = state_.written_bytes.load(),
            .errors = state_.errors.load(),
            .bad_chains = state_.bad_chains.load(),
            .dropped = state_.dropped.load()};
}

}  // namespace splitvisor::vmm::virtio
