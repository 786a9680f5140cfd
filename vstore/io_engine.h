#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "base/fd.h"
#include "base/result.h"

namespace splitvisor::vstore {

enum class IoKind { kRead, kWrite, kSync, kDiscard, kWriteZeroes };

/// One operation on a file. Its owner keeps it, and its buffer, in place from start() until it is done.
struct IoOperation {
    IoKind kind = IoKind::kRead;
    std::uint64_t offset = 0;     ///< bytes
    std::uint64_t length = 0;     ///< bytes; kRead, kWrite: at most 1 GiB
    std::byte* buffer = nullptr;  ///< kRead, kWrite: `length` bytes

    /// Out: 0 or the errno of the failure.
    int error_number = 0;

  private:
    friend class IoEngine;
    /// kWriteZeroes goes on to the next way where the file system does not know one.
    enum class ZeroWay { kZeroRange, kPunchHole, kWrite };
    std::uint64_t progress_ = 0;  ///< bytes that are done
    ZeroWay zero_way_ = ZeroWay::kZeroRange;
};

/// Reads and writes one file through an io_uring of its own. An operation is done when all of it is done:
/// short reads and writes go on where they stopped. kSync makes durable what was done before it was started.
/// kDiscard frees the range where the file system can, and it then reads as zeros; elsewhere it does nothing.
/// kWriteZeroes always works, by writing zeros if need be.
///
/// Threads: start() by one thread, wait() by one other, wake() by any.
class IoEngine {
  public:
    struct Options {
        unsigned depth = 256;        ///< most operations under way
        bool write_through = false;  ///< kWrite and kWriteZeroes are durable when done
        bool fallocate = true;       ///< false: as on a file system without it
    };
    /// `file` is a regular file, without O_NONBLOCK. Not owned.
    static Result<std::unique_ptr<IoEngine>> create(int file, const Options& options);
    IoEngine(const IoEngine&) = delete;
    IoEngine& operator=(const IoEngine&) = delete;
    /// Nothing is under way any more.
    ~IoEngine();

    /// True where the operation is done already; wait() will not return it then.
    [[nodiscard]] bool start(IoOperation& operation);

    /// The next operation that is done, or nullptr after wake().
    [[nodiscard]] IoOperation* wait();

    /// Makes a wait() return nullptr, at once or when it is called next.
    void wake();

  private:
    IoEngine(int file, const Options& options) : file_{file}, options_{options} {}

    [[nodiscard]] bool finish_cached_read(IoOperation& operation) const;
    [[nodiscard]] bool finish_small_write(IoOperation& operation) const;
    void prepare(io_uring_sqe& entry, IoOperation& operation) const;
    void prepare_zeroes(io_uring_sqe& entry, IoOperation& operation) const;
    void prepare_write(io_uring_sqe& entry, const IoOperation& operation,
                       std::span<const std::byte> bytes) const;
    /// Null: a wake-up.
    void submit(IoOperation* operation);
    /// Takes in one result of the kernel's; false where the operation has to go on.
    [[nodiscard]] bool take_result(IoOperation& operation, int result);
    [[nodiscard]] bool next_zero_way(IoOperation& operation) const;

    const int file_;
    const Options options_;
    io_uring ring_{};
    bool ring_made_ = false;
    std::mutex submission_;  ///< an operation that goes on is submitted by the waiting thread
};

}  // namespace splitvisor::vstore
