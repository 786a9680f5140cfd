#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "vmm/virtio/virtio_device.h"
#include "vmm/virtio/worker.h"

namespace splitvisor::vmm::virtio {

/// What the guest says about its memory, in bytes or events; virtio 1.2, section 5.5.6.3, by tag.
struct GuestMemoryStats {
    static constexpr std::size_t kTags = 10;
    enum Tag { kSwapIn, kSwapOut, kMajorFaults, kMinorFaults, kFree, kTotal, kAvailable, kCaches, kHugeAllocated, kHugeFailed };
    std::array<std::optional<std::uint64_t>, kTags> values{};
    std::uint64_t updates = 0;  ///< reports received so far; 0: nothing known
};

struct BalloonCounters {
    std::uint64_t inflated_pages = 0;  ///< ever put into the balloon
    std::uint64_t deflated_pages = 0;  ///< ever taken out of it
    std::uint64_t reported_pages = 0;  ///< forgotten through free page reporting
    std::uint64_t refused_pages = 0;   ///< named by the guest, but not pages of its RAM, or too many at once
    std::uint64_t bad_chains = 0;
};

/// A memory balloon (virtio 1.2, section 5.5) with free page reporting: how the guest says which pages' content it no
/// longer needs. Such pages are forgotten by a thread of the device before the driver gets its buffer back; when they
/// are touched again they read as zero.
class Balloon final : public VirtioDevice {
  public:
    /// Drops the content of `count` lines; may block. Called by the device's thread.
    using Forget = std::function<void(Line first, std::uint32_t count)>;

    /// Errors: kIo.
    static Result<std::unique_ptr<Balloon>> create(const GuestMemory& memory, Forget forget);
    ~Balloon() override;

    [[nodiscard]] DeviceId id() const override { return DeviceId::kBalloon; }
    [[nodiscard]] std::uint64_t features() const override;
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const override;
    void read_config(std::uint32_t offset, std::span<std::byte> into) const override;
    void write_config(std::uint32_t offset, std::span<const std::byte> from) override;
    [[nodiscard]] std::uint32_t config_generation() const override { return generation_.load(); }
    void activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt) override;
    void reset() override;

    /// Asks the guest to give up this many pages in all. Any thread. The guest does it when and as far as it can.
    void set_target(PageCount pages);
    /// What the guest says that it gave up.
    [[nodiscard]] PageCount actual() const { return PageCount{actual_.load()}; }

    /// Asks the guest for new statistics, which stats() shows when they have come. Any thread. While the
    /// guest is about to send some, those are the answer.
    void request_stats();
    [[nodiscard]] GuestMemoryStats stats() const;
    [[nodiscard]] BalloonCounters counters() const;

  private:
    Balloon(const GuestMemory& memory, Forget forget, EventFd stats_wanted, std::unique_ptr<Worker> worker);

    using Handler = void (Balloon::*)(const Chain&);
    void serve(ActiveQueue& queue, std::size_t source, Handler handle);
    void take_chains(ActiveQueue& queue, Handler handle);
    void handle_inflate(const Chain& chain);
    void handle_deflate(const Chain& chain);
    void handle_report(const Chain& chain);
    void forget_segment(const Segment& segment);
    void take_stats();
    void serve_stats();
    void serve_stats_request();
    void read_stats(const Chain& chain);
    void settle(ActiveQueue& queue, std::size_t source);

    const GuestMemory& memory_;
    Forget forget_;
    EventFd stats_wanted_;

    std::atomic<std::uint32_t> target_pages_{0};
    std::atomic<std::uint32_t> actual_{0};
    std::atomic<std::uint32_t> poison_{0};  ///< what free pages hold; only zero can be forgotten
    std::atomic<std::uint32_t> generation_{0};
    std::mutex interrupt_mutex_;  ///< guards the pointer for set_target(); the worker uses its own
    DeviceInterrupt* interrupt_ = nullptr;

    // Owned by the worker while it serves, by activate() and reset() while it rests.
    std::vector<ActiveQueue> queues_;
    ActiveQueue* stats_queue_ = nullptr;
    std::size_t stats_source_ = 0;
    DeviceInterrupt* worker_interrupt_ = nullptr;
    Chain chain_;
    std::optional<std::uint16_t> stats_head_;  ///< the driver's buffer, held until statistics are wanted

    mutable std::mutex stats_mutex_;  ///< guards the statistics
    GuestMemoryStats stats_;
    std::atomic<std::uint64_t> inflated_{0};
    std::atomic<std::uint64_t> deflated_{0};
    std::atomic<std::uint64_t> reported_{0};
    std::atomic<std::uint64_t> refused_{0};
    std::atomic<std::uint64_t> bad_chains_{0};

    std::unique_ptr<Worker> worker_;  ///< last: it stops before the rest goes
};

}  // namespace splitvisor::vmm::virtio
