#include "vstore/io_engine.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/kernel_order.h"
#include "base/log.h"
#include "base/units.h"

namespace splitvisor::vstore {

namespace {

constexpr std::size_t kZeroChunkBytes = 256 * 1024;
alignas(kPageBytes) constexpr std::array<std::byte, kZeroChunkBytes> kZeroes{};

/// fallocate and one system call's read or write take off_t and size_t lengths; the kernel cuts at 2 GiB
/// anyhow.
constexpr std::uint64_t kMaxTransferBytes = kGiB;

/// A write of whole pages into the page cache costs less than handing it to another thread, which is what
/// io_uring does with buffered writes on ext4. Larger ones would keep the starting thread from its next
/// message for too long.
constexpr std::uint64_t kInlineWriteBytes = 64 * kKiB;

bool is_unsupported(int error_number)
{
    return error_number == EOPNOTSUPP || error_number == ENOSYS || error_number == ENODEV;
}

}  // namespace

Result<std::unique_ptr<IoEngine>> IoEngine::create(int file, const Options& options)
{
    std::unique_ptr<IoEngine> engine{new IoEngine{file, options}};
    // One entry more than operations, for a wake-up.
    io_uring_params parameters{};
    const int result = ::io_uring_queue_init_params(options.depth + 1, &engine->ring_, &parameters);
    if (result < 0) return Error::from_errno("io_uring_queue_init", -result);
    engine->ring_made_ = true;
    return engine;
}

IoEngine::~IoEngine()
{
    if (ring_made_) ::io_uring_queue_exit(&ring_);
}

bool IoEngine::finish_cached_read(IoOperation& operation) const
{
    const iovec vector{operation.buffer, operation.length};
    const auto count = ::preadv2(file_, &vector, 1, narrow<off_t>(operation.offset), RWF_NOWAIT);
    if (count > 0) operation.progress_ = static_cast<std::uint64_t>(count);
    return operation.progress_ == operation.length;
}

bool IoEngine::finish_small_write(IoOperation& operation) const
{
    const bool whole_pages = (operation.offset | operation.length) % kPageBytes == 0;
    if (options_.write_through || !whole_pages || operation.length > kInlineWriteBytes) return false;
    const auto count = ::pwrite(file_, operation.buffer, operation.length, narrow<off_t>(operation.offset));
    if (count > 0) operation.progress_ = static_cast<std::uint64_t>(count);
    return operation.progress_ == operation.length;
}

bool IoEngine::start(IoOperation& operation)
{
    SPLITVISOR_CHECK(operation.length <= kMaxTransferBytes || operation.buffer == nullptr);
    operation.error_number = 0;
    operation.progress_ = 0;
    // fallocate knows no RWF_DSYNC.
    const bool by_fallocate = options_.fallocate && !options_.write_through;
    operation.zero_way_ = by_fallocate ? IoOperation::ZeroWay::kZeroRange : IoOperation::ZeroWay::kWrite;

    if (operation.kind == IoKind::kRead && finish_cached_read(operation)) return true;
    if (operation.kind == IoKind::kWrite && finish_small_write(operation)) return true;
    if (operation.kind == IoKind::kDiscard && !options_.fallocate) return true;
    submit(&operation);
    return false;
}

void IoEngine::prepare_write(io_uring_sqe& entry, const IoOperation& operation,
                             std::span<const std::byte> bytes) const
{
    ::io_uring_prep_write(&entry, file_, bytes.data(), narrow<unsigned>(bytes.size()),
                          operation.offset + operation.progress_);
    if (options_.write_through) entry.rw_flags = RWF_DSYNC;
}

void IoEngine::prepare_zeroes(io_uring_sqe& entry, IoOperation& operation) const
{
    const auto offset = narrow<off_t>(operation.offset);
    const auto length = narrow<off_t>(operation.length);
    switch (operation.zero_way_) {
    case IoOperation::ZeroWay::kZeroRange:
        ::io_uring_prep_fallocate(&entry, file_, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
        return;
    case IoOperation::ZeroWay::kPunchHole:
        ::io_uring_prep_fallocate(&entry, file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
        return;
    case IoOperation::ZeroWay::kWrite: break;
    }
    const auto left = operation.length - operation.progress_;
    prepare_write(entry, operation, std::span{kZeroes}.first(std::min<std::uint64_t>(left, kZeroes.size())));
}

void IoEngine::prepare(io_uring_sqe& entry, IoOperation& operation) const
{
    const auto left = operation.length - operation.progress_;
    switch (operation.kind) {
    case IoKind::kRead:
        ::io_uring_prep_read(&entry, file_, operation.buffer + operation.progress_, narrow<unsigned>(left),
                             operation.offset + operation.progress_);
        return;
    case IoKind::kWrite:
        prepare_write(entry, operation, {operation.buffer + operation.progress_, left});
        return;
    case IoKind::kSync: ::io_uring_prep_fsync(&entry, file_, IORING_FSYNC_DATASYNC); return;
    case IoKind::kDiscard:
        ::io_uring_prep_fallocate(&entry, file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  narrow<off_t>(operation.offset), narrow<off_t>(operation.length));
        return;
    case IoKind::kWriteZeroes: prepare_zeroes(entry, operation); return;
    }
}

void IoEngine::submit(IoOperation* operation)
{
    const std::lock_guard lock{submission_};
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    SPLITVISOR_CHECK(entry != nullptr);
    if (operation != nullptr) {
        prepare(*entry, *operation);
    } else {
        ::io_uring_prep_nop(entry);
    }
    ::io_uring_sqe_set_data(entry, operation);
    if (operation != nullptr) handed_to_kernel(operation);

    // EAGAIN and EBUSY pass when the kernel finds memory or the waiting thread has taken results.
    int result = ::io_uring_submit(&ring_);
    while (result == -EAGAIN || result == -EBUSY || result == -EINTR) {
        const timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000};
        ::nanosleep(&pause, nullptr);
        result = ::io_uring_submit(&ring_);
    }
    SPLITVISOR_CHECK(result >= 0);
}

bool IoEngine::next_zero_way(IoOperation& operation) const
{
    switch (operation.zero_way_) {
    case IoOperation::ZeroWay::kZeroRange:
        operation.zero_way_ = IoOperation::ZeroWay::kPunchHole;
        return true;
    case IoOperation::ZeroWay::kPunchHole: operation.zero_way_ = IoOperation::ZeroWay::kWrite; return true;
    case IoOperation::ZeroWay::kWrite: break;
    }
    return false;
}

bool IoEngine::take_result(IoOperation& operation, int result)
{
    if (result == -EINTR || result == -EAGAIN) return false;
    if (result < 0) {
        operation.error_number = -result;
        if (!is_unsupported(-result)) return true;
        if (operation.kind == IoKind::kDiscard) operation.error_number = 0;
        if (operation.kind != IoKind::kWriteZeroes || !next_zero_way(operation)) return true;
        operation.error_number = 0;
        return false;
    }

    const bool by_bytes =
        operation.kind == IoKind::kRead || operation.kind == IoKind::kWrite ||
        (operation.kind == IoKind::kWriteZeroes && operation.zero_way_ == IoOperation::ZeroWay::kWrite);
    if (!by_bytes) return true;
    // Within the volume nothing ends: the file was cut by someone else.
    if (result == 0) operation.error_number = EIO;
    operation.progress_ += static_cast<std::uint64_t>(result);
    return result == 0 || operation.progress_ == operation.length;
}

IoOperation* IoEngine::wait()
{
    while (true) {
        io_uring_cqe* completion = nullptr;
        const int waited = ::io_uring_wait_cqe(&ring_, &completion);
        if (waited == -EINTR) continue;
        SPLITVISOR_CHECK(waited == 0);
        auto* const operation = static_cast<IoOperation*>(::io_uring_cqe_get_data(completion));
        const int result = completion->res;
        ::io_uring_cqe_seen(&ring_, completion);
        if (operation == nullptr) return nullptr;
        taken_from_kernel(operation);
        if (take_result(*operation, result)) return operation;
        submit(operation);
    }
}

void IoEngine::wake()
{
    submit(nullptr);
}

}  // namespace splitvisor::vstore
