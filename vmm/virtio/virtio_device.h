#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "vmm/virtio/split_queue.h"

namespace splitvisor::vmm::virtio {

/// Virtio 1.2, section 5.
enum class DeviceId : std::uint32_t { kNet = 1, kBlock = 2, kRng = 4, kBalloon = 5 };

/// Feature bits that belong to no device type (virtio 1.2, section 6).
inline constexpr std::uint64_t kFeatureIndirect = std::uint64_t{1} << 28;
inline constexpr std::uint64_t kFeatureEventIndex = std::uint64_t{1} << 29;
inline constexpr std::uint64_t kFeatureVersion1 = std::uint64_t{1} << 32;
/// What every device of ours offers.
inline constexpr std::uint64_t kCommonFeatures = kFeatureIndirect | kFeatureEventIndex | kFeatureVersion1;

/// How an active device reaches its driver. Thread-safe, never blocks, takes no lock of the transport.
class DeviceInterrupt {
  public:
    virtual ~DeviceInterrupt() = default;
    virtual void used_buffers() = 0;
    virtual void configuration_changed() = 0;
    /// The driver broke the rules so that the device can't go on until it is reset (DEVICE_NEEDS_RESET).
    /// `reason` is a short fixed phrase for the log.
    virtual void needs_reset(std::string_view reason) = 0;
};

/// A queue the driver has made ready. `doorbell` is signalled at each notification and outlives the activation.
struct ActiveQueue {
    std::uint16_t index = 0;
    SplitQueue queue;
    const EventFd* doorbell = nullptr;
};

/// A device model. It knows no transport: registers, negotiation and the checks of ring addresses are the transport's.
/// The transport serialises activate() and reset(); configuration reads and writes come from any vCPU thread, also
/// while the device is active.
class VirtioDevice {
  public:
    virtual ~VirtioDevice() = default;

    [[nodiscard]] virtual DeviceId id() const = 0;
    /// All feature bits offered; constant.
    [[nodiscard]] virtual std::uint64_t features() const = 0;
    /// The largest size of each queue; constant; each a power of two up to kMaxQueueSize.
    [[nodiscard]] virtual std::span<const std::uint16_t> queue_sizes() const = 0;

    /// Fills all of `into`; bytes beyond the configuration read as zero.
    virtual void read_config(std::uint32_t offset, std::span<std::byte> into) const = 0;
    virtual void write_config(std::uint32_t offset, std::span<const std::byte> from);
    /// Differs after every change of the configuration by the device itself.
    [[nodiscard]] virtual std::uint32_t config_generation() const { return 0; }

    /// The driver is ready: serve these queues, those it made ready, until reset(). `features` are the negotiated ones.
    virtual void activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt) = 0;

    /// Back to where the device was before activate(). When it returns, the device touches neither guest memory nor the
    /// interrupt again, and what back ends still complete is dropped.
    virtual void reset() = 0;
};

/// Reads `into` from the bytes of a configuration structure, with zeros beyond its end.
void read_config_bytes(std::span<const std::byte> config, std::uint32_t offset, std::span<std::byte> into);

}  // namespace splitvisor::vmm::virtio
