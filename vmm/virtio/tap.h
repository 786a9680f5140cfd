#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/fd.h"

namespace splitvisor::vmm::virtio {

/// Bytes of the header before each frame (virtio 1.2, section 5.1.6), with num_buffers, both towards the guest and
/// towards the tap.
inline constexpr std::size_t kNetHeaderBytes = 12;

/// A host network interface that frames are written to and read from, each as one message behind a net header.
/// Non-blocking. Used by one thread.
class TapDevice {
  public:
    enum class Outcome { kDone, kWouldBlock, kDropped, kGone };
    struct Received {
        Outcome outcome = Outcome::kWouldBlock;
        std::size_t bytes = 0;  ///< header included
    };

    /// Any descriptor that keeps messages apart, set to non-blocking by the caller.
    explicit TapDevice(Fd fd) : fd_{std::move(fd)} {}

    /// Attaches to the interface `name`, a tap that exists. No offloads.
    /// Errors: kInvalid name, kNotFound, kIo (what the kernel says).
    static Result<TapDevice> open(const std::string& name);

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] Received receive(std::span<std::byte> into) const;
    [[nodiscard]] Outcome send(std::span<const std::byte> frame) const;

  private:
    Fd fd_;
};

}  // namespace splitvisor::vmm::virtio
