#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.h"

namespace splitvisor {

/// Owns a file descriptor.
class Fd {
  public:
    Fd() = default;
    explicit Fd(int fd) : fd_{fd} {}
    Fd(Fd&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
    Fd& operator=(Fd&& other) noexcept
    {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~Fd() { reset(); }

    [[nodiscard]] int get() const { return fd_; }
    [[nodiscard]] bool valid() const { return fd_ >= 0; }
    [[nodiscard]] int release() { return std::exchange(fd_, -1); }
    void reset();

  private:
    int fd_ = -1;
};

/// An eventfd: a counter that one thread raises and another waits for.
class EventFd {
  public:
    /// Non-blocking, close-on-exec.
    static Result<EventFd> create();

    void signal() const;
    /// Takes the counter down to zero; false where it was zero already.
    bool drain() const;
    [[nodiscard]] int fd() const { return fd_.get(); }

  private:
    explicit EventFd(Fd fd) : fd_{std::move(fd)} {}
    Fd fd_;
};

/// Writes all bytes to a blocking descriptor.
[[nodiscard]] Status write_all(int fd, std::span<const std::byte> bytes);

/// Reads exactly the span from a blocking descriptor; kUnavailable where the stream ends early.
[[nodiscard]] Status read_all(int fd, std::span<std::byte> bytes);

}  // namespace splitvisor
