#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "base/log.h"
#include "vmm/virtio/tap.h"
#include "vmm/virtio/virtio_device.h"
#include "vmm/virtio/worker.h"

namespace splitvisor::vmm::virtio {

using MacAddress = std::array<std::uint8_t, 6>;

struct NetCounters {
    std::uint64_t received = 0;
    std::uint64_t received_bytes = 0;  ///< of frames, without the net header
    std::uint64_t sent = 0;
    std::uint64_t sent_bytes = 0;
    std::uint64_t receive_dropped = 0;  ///< frames larger than the driver's buffer
    std::uint64_t send_dropped = 0;     ///< frames too short or too long, or that the interface refused
    std::uint64_t bad_chains = 0;
};

/// A network card (virtio 1.2, section 5.1) on a tap: one receive and one transmit queue, no offloads, one thread.
///
/// Frames are taken from the tap only when the driver has a buffer for one, so that a slow guest makes the kernel's
/// queue drop and not ours. A frame for which the tap has no room is kept, and the transmit queue waits with it.
class Net final : public VirtioDevice {
  public:
    /// Errors: kIo.
    static Result<std::unique_ptr<Net>> create(TapDevice tap, MacAddress mac);
    ~Net() override;

    [[nodiscard]] DeviceId id() const override { return DeviceId::kNet; }
    [[nodiscard]] std::uint64_t features() const override;
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const override;
    void read_config(std::uint32_t offset, std::span<std::byte> into) const override;
    void activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt) override;
    void reset() override;

    [[nodiscard]] NetCounters counters() const;

  private:
    Net(TapDevice tap, MacAddress mac, std::unique_ptr<Worker> worker);

    void serve_receive();
    void serve_transmit();
    void serve_tap();
    [[nodiscard]] bool find_receive_buffer();
    void deliver(std::size_t bytes);
    void transmit_queued();
    [[nodiscard]] bool send_pending();
    void gather(const Chain& chain);
    void drop_transmit(std::uint16_t head);
    void settle(ActiveQueue& queue);
    void lose_tap();
    void listen_to_tap();

    TapDevice tap_;
    MacAddress mac_;

    // Owned by the worker while it serves, by activate() and reset() while it rests.
    std::optional<ActiveQueue> receive_;
    std::optional<ActiveQueue> transmit_;
    DeviceInterrupt* interrupt_ = nullptr;
    Chain receive_chain_;
    bool has_receive_chain_ = false;
    Chain transmit_chain_;
    std::size_t pending_bytes_ = 0;  ///< of the frame in transmit_frame_ that waits for the tap; 0: none
    bool tap_gone_ = false;
    std::vector<std::byte> receive_frame_;
    std::vector<std::byte> transmit_frame_;
    LogLimit log_limit_;

    std::atomic<std::uint64_t> received_{0};
    std::atomic<std::uint64_t> received_bytes_{0};
    std::atomic<std::uint64_t> sent_{0};
    std::atomic<std::uint64_t> sent_bytes_{0};
    std::atomic<std::uint64_t> receive_dropped_{0};
    std::atomic<std::uint64_t> send_dropped_{0};
    std::atomic<std::uint64_t> bad_chains_{0};

    std::unique_ptr<Worker> worker_;  ///< last: it stops before the rest goes
};

}  // namespace splitvisor::vmm::virtio
