#include "vmm/virtio/block_request.h"

#include "base/bytes.h"
#include "base/checked.h"

namespace splitvisor::vmm::virtio {

namespace {

using Action = ParsedBlockRequest::Action;

struct Header {
    std::uint32_t type;
    std::uint32_t reserved;
    std::uint64_t sector;
};
static_assert(sizeof(Header) == kBlockHeaderBytes);

/// Of DISCARD and WRITE_ZEROES. The configuration announces one of them a request.
struct Range {
    std::uint64_t sector;
    std::uint32_t sectors;
    std::uint32_t flags;
};
static_assert(sizeof(Range) == 16);
constexpr std::uint32_t kUnmap = 1;

ParsedBlockRequest answer(BlockStatus status) { return {.action = Action::kAnswer, .status = status}; }

bool within(std::uint64_t sector, std::uint64_t sectors, const BlockLimits& limits)
{
    const auto end = checked_add(sector, sectors);
    return end && *end <= limits.capacity_sectors;
}

ParsedBlockRequest parse_transfer(Action action, std::uint64_t sector, std::uint64_t bytes, const BlockLimits& limits)
{
    if (bytes % kSectorBytes != 0 || bytes > kRequestBytesMax) return answer(BlockStatus::kIoError);
    if (!within(sector, bytes / kSectorBytes, limits)) return answer(BlockStatus::kIoError);
    if (bytes == 0) return answer(BlockStatus::kOk);
    return {.action = action, .offset = sector * kSectorBytes, .length = bytes};
}

ParsedBlockRequest parse_range(Action action, const GuestMemory& memory, const Chain& chain, const BlockLimits& limits)
{
    if (chain.readable.bytes() - kBlockHeaderBytes != sizeof(Range)) return answer(BlockStatus::kIoError);
    Range range{};
    if (!chain.readable.read(memory, kBlockHeaderBytes, std::as_writable_bytes(std::span{&range, 1}))) {
        return answer(BlockStatus::kIoError);
    }
    const auto known_flags = action == Action::kWriteZeroes ? kUnmap : 0;
    if ((range.flags & ~known_flags) != 0) return answer(BlockStatus::kUnsupported);
    if (range.sectors > kDiscardSectorsMax || !within(range.sector, range.sectors, limits)) {
        return answer(BlockStatus::kIoError);
    }
    if (range.sectors == 0) return answer(BlockStatus::kOk);
    return {.action = action, .offset = range.sector * kSectorBytes, .length = range.sectors * kSectorBytes};
}

}  // namespace

ParsedBlockRequest parse_block_request(const GuestMemory& memory, const Chain& chain, const BlockLimits& limits)
{
    if (chain.writable.bytes() == 0) return {.action = Action::kUnusable};
    Header header{};
    if (!chain.readable.read(memory, 0, std::as_writable_bytes(std::span{&header, 1}))) {
        return answer(BlockStatus::kIoError);
    }
    const auto data_in = chain.writable.bytes() - 1;
    const auto data_out = chain.readable.bytes() - kBlockHeaderBytes;
    switch (header.type) {
    case kBlockIn: return parse_transfer(Action::kRead, header.sector, data_in, limits);
    case kBlockFlush: return {.action = Action::kFlush};
    case kBlockGetId: return {.action = Action::kGetId};
    case kBlockOut:
        if (limits.read_only) return answer(BlockStatus::kIoError);
        return parse_transfer(Action::kWrite, header.sector, data_out, limits);
    case kBlockDiscard:
        if (limits.read_only) return answer(BlockStatus::kIoError);
        return parse_range(Action::kDiscard, memory, chain, limits);
    case kBlockWriteZeroes:
        if (limits.read_only) return answer(BlockStatus::kIoError);
        return parse_range(Action::kWriteZeroes, memory, chain, limits);
    default: return answer(BlockStatus::kUnsupported);
    }
}

}  // namespace splitvisor::vmm::virtio
