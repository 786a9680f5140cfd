#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "vmm/virtio/virtio_device.h"
#include "vmm/virtio/worker.h"

namespace splitvisor::vmm::virtio {

struct RngCounters {
    std::uint64_t requests = 0;
    std::uint64_t bytes = 0;
    std::uint64_t bad_chains = 0;
};

/// An entropy source (virtio 1.2, section 5.4), fed by the host kernel's generator. A request gets at most 4 KiB,
/// however large its buffer: the driver asks again.
class Rng final : public VirtioDevice {
  public:
    /// Errors: kIo.
    static Result<std::unique_ptr<Rng>> create();
    ~Rng() override;

    [[nodiscard]] DeviceId id() const override { return DeviceId::kRng; }
    [[nodiscard]] std::uint64_t features() const override { return kCommonFeatures; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const override;
    void read_config(std::uint32_t offset, std::span<std::byte> into) const override;
    void activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt) override;
    void reset() override;

    [[nodiscard]] RngCounters counters() const;

  private:
    explicit Rng(std::unique_ptr<Worker> worker);
    void serve();
    void take_requests();
    [[nodiscard]] std::uint32_t fill(const Chain& chain);

    std::optional<ActiveQueue> queue_;
    DeviceInterrupt* interrupt_ = nullptr;
    Chain chain_;
    std::atomic<std::uint64_t> requests_{0};
    std::atomic<std::uint64_t> bytes_{0};
    std::atomic<std::uint64_t> bad_chains_{0};
    std::unique_ptr<Worker> worker_;  ///< last: it stops before the rest goes
};

}  // namespace splitvisor::vmm::virtio
