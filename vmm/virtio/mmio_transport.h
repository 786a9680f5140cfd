#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "vmm/device.h"
#include "vmm/guest_memory.h"
#include "vmm/virtio/virtio_device.h"

namespace splitvisor::vmm::virtio {

/// Size of the window that the memory map reserves for each device; registers and configuration use its first 0x200 bytes.
inline constexpr std::uint64_t kMmioWindowBytes = 0x1000;

struct TransportCounters {
    std::uint64_t refused_accesses = 0;  ///< wrong width, unknown register, or not allowed in this state
    std::uint64_t activations = 0;
    std::uint64_t resets = 0;
    std::uint64_t broken = 0;            ///< times DEVICE_NEEDS_RESET was raised
    std::uint64_t software_notifies = 0; ///< notifications that came by an exit and not through an ioeventfd
};

/// A virtio device behind memory-mapped registers, virtio 1.2 section 4.2, version 2 (no legacy interface).
/// The window is read and written by vCPU threads; notification and interrupt registers take no lock.
class MmioTransport final : public IoDevice, private DeviceInterrupt {
  public:
    /// Registers one doorbell a queue at `window`; where the registry refuses, notifications work by exits.
    /// `memory`, `line` and `registry` outlive the transport. Errors: kIo where no eventfd can be made.
    static Result<std::unique_ptr<MmioTransport>> create(std::unique_ptr<VirtioDevice> device, const GuestMemory& memory,
                                                         InterruptLine& line, DoorbellRegistry& registry, Gpa window);
    ~MmioTransport() override;
    MmioTransport(const MmioTransport&) = delete;
    MmioTransport& operator=(const MmioTransport&) = delete;

    void read(std::uint64_t offset, std::span<std::byte> into) override;
    void write(std::uint64_t offset, std::span<const std::byte> from) override;

    /// Machine reset: everything as at power-on. The device is quiet when this returns. Any thread.
    void reset();

    [[nodiscard]] VirtioDevice& device() { return *device_; }
    [[nodiscard]] TransportCounters counters() const;

  private:
    struct QueueRegisters {
        std::uint32_t size = 0;
        bool ready = false;
        std::uint64_t descriptors = 0;
        std::uint64_t available = 0;
        std::uint64_t used = 0;
    };
    struct Doorbell {
        EventFd event;
        bool registered = false;
    };

    MmioTransport(std::unique_ptr<VirtioDevice> device, const GuestMemory& memory, InterruptLine& line,
                  DoorbellRegistry& registry, Gpa window, std::vector<Doorbell> doorbells);

    void used_buffers() override;
    void configuration_changed() override;
    void needs_reset(std::string_view reason) override;

    [[nodiscard]] std::uint32_t read_register(std::uint64_t offset);
    [[nodiscard]] std::uint32_t read_locked(std::uint64_t offset);
    void write_config(std::uint32_t offset, std::span<const std::byte> from);
    void write_register(std::uint64_t offset, std::uint32_t value);
    void write_queue_register(std::uint64_t offset, std::uint32_t value);
    void write_driver_features(std::uint32_t value);
    void write_status(std::uint32_t value);
    void notify(std::uint32_t queue);
    [[nodiscard]] bool has_status(std::uint32_t bits) const;
    [[nodiscard]] bool features_acceptable() const;
    [[nodiscard]] Result<std::vector<ActiveQueue>> ready_queues() const;
    void activate();
    void reset_locked();
    void refuse();

    std::unique_ptr<VirtioDevice> device_;
    const GuestMemory& memory_;
    InterruptLine& line_;
    DoorbellRegistry& registry_;
    Gpa window_;
    std::vector<Doorbell> doorbells_;  ///< one a queue; constant after construction

    std::atomic<std::uint32_t> status_{0};
    std::atomic<std::uint32_t> interrupt_status_{0};

    std::mutex mutex_;  ///< guards what follows, down to the counters
    std::uint32_t device_features_select_ = 0;
    std::uint32_t driver_features_select_ = 0;
    std::uint64_t driver_features_ = 0;
    std::uint32_t queue_select_ = 0;
    std::vector<QueueRegisters> queues_;
    bool active_ = false;

    std::mutex log_mutex_;  ///< guards the limit
    LogLimit log_limit_;
    std::atomic<std::uint64_t> refused_accesses_{0};
    std::atomic<std::uint64_t> activations_{0};
    std::atomic<std::uint64_t> resets_{0};
    std::atomic<std::uint64_t> broken_{0};
    std::atomic<std::uint64_t> software_notifies_{0};
};

}  // namespace splitvisor::vmm::virtio
