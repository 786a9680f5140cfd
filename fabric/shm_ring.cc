#include "fabric/shm_ring.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace splitvisor::fabric {

namespace {

/// The peer gets to work on the beginning of a large message while the rest is still being copied.
constexpr std::size_t kPublishBytes = 32 * 1024;

}  // namespace

void futex_wait(std::atomic<std::uint32_t>& word, int limit_ms)
{
    // Not FUTEX_PRIVATE_FLAG: the waker is another process.
    const timespec limit{limit_ms / 1'000, (limit_ms % 1'000) * 1'000'000L};
    ::syscall(SYS_futex, &word, FUTEX_WAIT, 1, &limit, nullptr, 0);
}

void futex_wake(std::atomic<std::uint32_t>& word)
{
    if (word.load() == 0) return;
    word.store(0);
    ::syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void RingWriter::copy_in(std::span<const std::byte> bytes)
{
    const auto offset = written_ & (kRingBytes - 1);
    const auto first = std::min(bytes.size(), kRingBytes - offset);
    std::memcpy(bytes_ + offset, bytes.data(), first);
    std::memcpy(bytes_, bytes.data() + first, bytes.size() - first);
    written_ += bytes.size();
}

std::optional<std::size_t> RingWriter::write(std::span<const iovec> vectors)
{
    const auto used = within_ring(written_, control_->consumed.load(std::memory_order_acquire));
    if (!used) return std::nullopt;
    const auto room = kRingBytes - *used;
    auto left = room;
    std::size_t unpublished = 0;
    const auto publish = [&] {
        control_->written.store(written_);
        futex_wake(control_->reader_waits);
        unpublished = 0;
    };
    for (const auto& vector : vectors) {
        std::span bytes{static_cast<const std::byte*>(vector.iov_base), vector.iov_len};
        bytes = bytes.first(std::min(bytes.size(), left));
        left -= bytes.size();
        while (!bytes.empty()) {
            const auto piece = bytes.first(std::min(bytes.size(), kPublishBytes - unpublished));
            copy_in(piece);
            bytes = bytes.subspan(piece.size());
            unpublished += piece.size();
            if (unpublished == kPublishBytes) publish();
        }
        if (left == 0) break;
    }
    if (unpublished > 0) publish();
    return room - left;
}

bool RingWriter::ready() const
{
    const auto used = within_ring(written_, control_->consumed.load());
    return !used || *used < kRingBytes;
}

void RingWriter::wake()
{
    futex_wake(control_->writer_waits);
}

void RingReader::copy_out(std::span<std::byte> into)
{
    const auto offset = consumed_ & (kRingBytes - 1);
    const auto first = std::min(into.size(), kRingBytes - offset);
    std::memcpy(into.data(), bytes_ + offset, first);
    std::memcpy(into.data() + first, bytes_, into.size() - first);
    consumed_ += into.size();
}

std::optional<std::size_t> RingReader::read(std::span<const iovec> into)
{
    const auto filled = within_ring(control_->written.load(std::memory_order_acquire), consumed_);
    if (!filled) return std::nullopt;
    auto left = *filled;
    for (const auto& vector : into) {
        if (left == 0) break;
        const auto count = std::min(vector.iov_len, left);
        copy_out({static_cast<std::byte*>(vector.iov_base), count});
        left -= count;
    }
    const auto count = *filled - left;
    if (count > 0) {
        control_->consumed.store(consumed_);
        futex_wake(control_->writer_waits);
    }
    return count;
}

bool RingReader::ready() const
{
    return control_->written.load() != consumed_;
}

void RingReader::wake()
{
    futex_wake(control_->reader_waits);
}

}  // namespace splitvisor::fabric
