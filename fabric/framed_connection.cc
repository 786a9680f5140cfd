#include "fabric/framed_connection.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/clock.h"

namespace splitvisor::fabric {

namespace {

constexpr std::size_t kSkipBytes = 16 * 1024;

std::atomic<std::uint64_t> sent_bytes{0};
std::atomic<std::uint64_t> received_bytes{0};

std::size_t total_bytes(std::span<const iovec> vectors)
{
    std::size_t total = 0;
    for (const auto& vector : vectors) total += vector.iov_len;
    return total;
}

std::uint32_t crc_of(std::span<const iovec> vectors)
{
    std::uint32_t crc = 0;
    for (const auto& vector : vectors) {
        crc = crc32c({static_cast<const std::byte*>(vector.iov_base), vector.iov_len}, crc);
    }
    return crc;
}

/// What is left of the vectors after the first `count` bytes.
std::span<iovec> advance(std::span<iovec> vectors, std::size_t count)
{
    while (!vectors.empty() && count >= vectors.front().iov_len) {
        count -= vectors.front().iov_len;
        vectors = vectors.subspan(1);
    }
    if (count > 0) {
        auto& first = vectors.front();
        first.iov_base = static_cast<std::byte*>(first.iov_base) + count;
        first.iov_len -= count;
    }
    return vectors;
}

iovec vector_of(std::span<const std::byte> bytes)
{
    // No sender writes through iov_base; the type cannot say so.
    return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace

Traffic traffic()
{
    return {sent_bytes.load(std::memory_order_relaxed), received_bytes.load(std::memory_order_relaxed)};
}

FramedConnection::FramedConnection(std::string peer, int message_limit_ms, std::size_t read_ahead_bytes)
    : peer_{std::move(peer)}, message_limit_ms_{message_limit_ms}, read_ahead_bytes_{read_ahead_bytes}
{
    SPLITVISOR_CHECK(message_limit_ms > 0);
    buffer_.resize(read_ahead_bytes);
}

Error FramedConnection::broken(ErrorCode code, std::string_view why)
{
    // A call that fails because another thread has shut the connection down says just that.
    if (ended()) return Error{ErrorCode::kUnavailable, peer_ + ": the connection has ended"};
    shutdown();
    return Error{code, peer_ + ": " + std::string{why}};
}

std::uint64_t FramedConnection::message_deadline() const
{
    return now_ms() + static_cast<std::uint64_t>(message_limit_ms_);
}

Error FramedConnection::late() const
{
    return Error{ErrorCode::kTimeout, peer_ + ": nothing within the deadline"};
}

Status FramedConnection::wait_for_input(std::uint64_t deadline_ms)
{
    if (deadline_ms <= now_ms()) return sleep_for_input(deadline_ms);
    if (spinner_.worthwhile()) {
        if (spinner_.poll([this] { return input_ready(); })) return {};
        return sleep_for_input(deadline_ms);
    }
    const auto start_ns = now_ns();
    SPLITVISOR_TRY(sleep_for_input(deadline_ms));
    spinner_.slept(now_ns() - start_ns);
    return {};
}

Status FramedConnection::send(const Message& message)
{
    if (ended()) return broken(ErrorCode::kUnavailable, "");
    if (message.head.size() > kMaxHeadBytes)
        return Error{ErrorCode::kInvalid, "the message's head is too large"};
    std::size_t data_bytes = 0;
    for (const auto& vector : message.data) {
        if (vector.iov_len > kMaxDataBytes - data_bytes) {
            return Error{ErrorCode::kInvalid, "the message's data is too large"};
        }
        data_bytes += vector.iov_len;
    }

    FrameHeader header{
        .magic = kFrameMagic,
        .kind = message.kind,
        .status = message.status,
        .request_id = message.request_id,
        .head_bytes = static_cast<std::uint32_t>(message.head.size()),
        .data_bytes = static_cast<std::uint32_t>(data_bytes),
        .data_crc = crc_of(message.data),
        .head_crc = 0,
    };
    header.head_crc = head_crc_of(header, message.head);

    send_vectors_.clear();
    send_vectors_.push_back(vector_of(bytes_of(header)));
    send_vectors_.push_back(vector_of(message.head));
    send_vectors_.insert(send_vectors_.end(), message.data.begin(), message.data.end());
    return send_all(send_vectors_);
}

Status FramedConnection::send_all(std::span<iovec> vectors)
{
    const auto deadline_ms = message_deadline();
    auto left = total_bytes(vectors);
    while (left > 0) {
        const auto count = write_some(vectors);
        if (!count) return count.error();
        if (*count == 0) {
            const auto waited = sleep_for_output(deadline_ms);
            if (!waited) return broken(waited.error().code(), "the peer does not take a message");
            continue;
        }
        sent_bytes.fetch_add(*count, std::memory_order_relaxed);
        vectors = advance(vectors, *count);
        left -= *count;
        // The wait above is not the only place to notice a peer that takes a few bytes now and then.
        if (left > 0 && now_ms() >= deadline_ms) {
            return broken(ErrorCode::kTimeout, "the peer takes a message too slowly");
        }
    }
    return {};
}

Result<std::size_t> FramedConnection::read_now(std::span<iovec> into, std::uint64_t deadline_ms)
{
    while (true) {
        const auto count = read_some(into);
        if (!count) return count.error();
        if (*count > 0) {
            received_bytes.fetch_add(*count, std::memory_order_relaxed);
            return *count;
        }
        SPLITVISOR_TRY(wait_for_input(deadline_ms));
    }
}

/// Makes at least `needed` bytes available in the buffer; takes more where more has arrived.
Status FramedConnection::fill_buffer(std::size_t needed, std::uint64_t deadline_ms)
{
    if (end_ - begin_ >= needed) return {};
    if (begin_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    if (buffer_.size() < needed) buffer_.resize(needed);
    const auto wanted = std::max(needed, read_ahead_bytes_);
    while (end_ < needed) {
        iovec free{buffer_.data() + end_, wanted - end_};
        const auto count = read_now({&free, 1}, deadline_ms);
        if (!count) return count.error();
        end_ += *count;
        if (end_ < needed && now_ms() >= deadline_ms) {
            return Error{ErrorCode::kTimeout, peer_ + ": a message arrives too slowly"};
        }
    }
    return {};
}

Result<Incoming> FramedConnection::receive(int timeout_ms)
{
    SPLITVISOR_CHECK(pending_data_bytes_ == 0);
    if (ended()) return broken(ErrorCode::kUnavailable, "");
    if (begin_ == end_) {
        const auto deadline_ms = timeout_ms < 0 ? kNever : now_ms() + static_cast<std::uint64_t>(timeout_ms);
        SPLITVISOR_TRY(wait_for_input(deadline_ms));
        begin_ = end_ = 0;
    }

    // A message has begun: from here on a peer that stalls costs it the connection.
    const auto deadline_ms = message_deadline();
    const auto fill = [&](std::size_t needed) -> Status {
        const auto filled = fill_buffer(needed, deadline_ms);
        if (!filled && filled.error().code() == ErrorCode::kTimeout) {
            return broken(ErrorCode::kUnavailable, "the peer stalled in the middle of a message");
        }
        return filled;
    };
    SPLITVISOR_TRY(fill(sizeof(FrameHeader)));
    const auto header = load<FrameHeader>(buffered());
    if (header.magic != kFrameMagic || header.head_bytes > kMaxHeadBytes ||
        header.data_bytes > kMaxDataBytes) {
        return broken(ErrorCode::kCorrupt, "a frame header that no peer of ours sends");
    }
    SPLITVISOR_TRY(fill(sizeof header + header.head_bytes));
    const auto head = buffered().subspan(sizeof header, header.head_bytes);
    if (head_crc_of(header, head) != header.head_crc)
        return broken(ErrorCode::kCorrupt, "the checksum of a head");

    begin_ += sizeof header + head.size();
    pending_data_bytes_ = header.data_bytes;
    pending_data_crc_ = header.data_crc;
    return Incoming{header.kind, header.status, header.request_id, head, header.data_bytes};
}

/// Takes what the buffer has of the data. The buffer itself stays as it is: the head is still in use.
std::size_t FramedConnection::take_buffered(std::span<std::byte> into)
{
    const auto count = std::min(into.size(), end_ - begin_);
    std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_), count, into.begin());
    begin_ += count;
    return count;
}

Status FramedConnection::read_all(std::span<iovec> vectors)
{
    while (!vectors.empty() && begin_ != end_) {
        auto& first = vectors.front();
        const auto count = take_buffered({static_cast<std::byte*>(first.iov_base), first.iov_len});
        vectors = advance(vectors, count);
    }
    const auto deadline_ms = message_deadline();
    auto left = total_bytes(vectors);
    while (left > 0) {
        const auto count = read_now(vectors, deadline_ms);
        if (!count && count.error().code() == ErrorCode::kTimeout) {
            return broken(ErrorCode::kTimeout, "the peer stalled in the middle of a message");
        }
        if (!count) return count.error();
        vectors = advance(vectors, *count);
        left -= *count;
        if (left > 0 && now_ms() >= deadline_ms)
            return broken(ErrorCode::kTimeout, "a message arrives too slowly");
    }
    return {};
}

Status FramedConnection::receive_data(std::span<const iovec> into)
{
    SPLITVISOR_CHECK(total_bytes(into) == pending_data_bytes_);
    if (pending_data_bytes_ == 0) return {};
    pending_data_bytes_ = 0;
    receive_vectors_.assign(into.begin(), into.end());
    SPLITVISOR_TRY(read_all(receive_vectors_));
    if (crc_of(into) != pending_data_crc_) return broken(ErrorCode::kCorrupt, "the checksum of the data");
    return {};
}

Status FramedConnection::skip_data()
{
    std::array<std::byte, kSkipBytes> nowhere;
    auto left = pending_data_bytes_;
    pending_data_bytes_ = 0;
    const auto deadline_ms = message_deadline();
    while (left > 0) {
        iovec vector{nowhere.data(), std::min(left, nowhere.size())};
        left -= vector.iov_len;
        SPLITVISOR_TRY(read_all({&vector, 1}));
        if (left > 0 && now_ms() >= deadline_ms)
            return broken(ErrorCode::kTimeout, "a message arrives too slowly");
    }
    return {};
}

}  // namespace splitvisor::fabric
