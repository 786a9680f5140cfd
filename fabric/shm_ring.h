#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace splitvisor::fabric {

/// Both rings of a connection together stay within a second-level cache.
inline constexpr std::size_t kRingBytes = 256 * 1024;
static_assert((kRingBytes & (kRingBytes - 1)) == 0);

/// What the two sides of one direction share. Positions count bytes since the beginning and never wrap. Each
/// is written by one side, which keeps its own copy and never reads it back; what the other side wrote is
/// believed only after `within_ring`. A waits word is 1 while its owner sleeps or is about to: it is the
/// futex.
struct RingControl {
    alignas(64) std::atomic<std::uint64_t> written;
    std::atomic<std::uint32_t> writer_waits;
    alignas(64) std::atomic<std::uint64_t> consumed;
    std::atomic<std::uint32_t> reader_waits;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

/// The memory that the two sides share. All zero at the beginning. Version 1.
struct ShmLayout {
    std::atomic<std::uint32_t> closed;  ///< either side has shut down
    RingControl control[2];             ///< [0] carries what the connecting side sends
    alignas(4096) std::byte bytes[2][kRingBytes];
};
static_assert(sizeof(ShmLayout) == 4096 + 2 * kRingBytes);

/// The distance between two positions, or nothing where no honest peer could have made it.
[[nodiscard]] constexpr std::optional<std::size_t> within_ring(std::uint64_t ahead, std::uint64_t behind)
{
    const auto distance = ahead - behind;
    if (distance > kRingBytes) return std::nullopt;
    return static_cast<std::size_t>(distance);
}

/// The sending end. One thread; `wake` by any.
class RingWriter {
  public:
    RingWriter(RingControl& control, std::span<std::byte, kRingBytes> bytes)
        : control_{&control}, bytes_{bytes.data()}
    {
    }

    /// The bytes that fitted; nothing where the peer's position is impossible.
    [[nodiscard]] std::optional<std::size_t> write(std::span<const iovec> vectors);
    [[nodiscard]] bool ready() const;
    /// Sleeps until the reader wakes us, at most so long. False from `still` keeps it from sleeping.
    template <typename Predicate>
    void sleep(Predicate still, int limit_ms);
    void wake();

  private:
    void copy_in(std::span<const std::byte> bytes);

    RingControl* const control_;
    std::byte* const bytes_;
    std::uint64_t written_ = 0;
};

/// The receiving end. One thread; `wake` by any.
class RingReader {
  public:
    RingReader(RingControl& control, std::span<const std::byte, kRingBytes> bytes)
        : control_{&control}, bytes_{bytes.data()}
    {
    }

    /// The bytes that were there; nothing where the peer's position is impossible.
    [[nodiscard]] std::optional<std::size_t> read(std::span<const iovec> into);
    [[nodiscard]] bool ready() const;
    template <typename Predicate>
    void sleep(Predicate still, int limit_ms);
    void wake();

  private:
    void copy_out(std::span<std::byte> into);

    RingControl* const control_;
    const std::byte* const bytes_;
    std::uint64_t consumed_ = 0;
};

/// Waits while the word is 1, at most so long; returns early now and then.
void futex_wait(std::atomic<std::uint32_t>& word, int limit_ms);
/// Wakes the other side if it sleeps. What it waits for was stored before, sequentially consistently as all that it looks at
/// before it sleeps: either it sees what we stored or we see its 1.
void futex_wake(std::atomic<std::uint32_t>& word);

template <typename Predicate>
void sleep_on(std::atomic<std::uint32_t>& word, Predicate still, int limit_ms)
{
    word.store(1);
    if (still()) futex_wait(word, limit_ms);
    word.store(0);
}

template <typename Predicate>
void RingWriter::sleep(Predicate still, int limit_ms)
{
    sleep_on(
        control_->writer_waits, [&] { return !ready() && still(); }, limit_ms);
}

template <typename Predicate>
void RingReader::sleep(Predicate still, int limit_ms)
{
    sleep_on(
        control_->reader_waits, [&] { return !ready() && still(); }, limit_ms);
}

}  // namespace splitvisor::fabric
