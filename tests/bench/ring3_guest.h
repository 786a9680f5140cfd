#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "guests/ring3/abi.h"
#include "vcpu/vcpu.h"

namespace splitvisor::bench {

/// Runs one program of guests/ring3 on KVM, over memory that somebody else provides. One object, one run.
/// Any thread may call fail(); the rest belongs to one thread.
class Ring3Guest final : private vcpu::ExitHandler {
  public:
    struct Times {
        std::uint64_t prepare_ns = 0;  ///< from the first vCPU's start until the last is prepared
        std::uint64_t work_ns = 0;     ///< from then until the last has done its work
    };
    /// Called on a vCPU's thread when all have arrived at a step, before any goes on.
    using OnStep = std::function<void(ring3::Step)>;

    explicit Ring3Guest(OnStep on_step = [](ring3::Step) {}) : on_step_{std::move(on_step)} {}

    /// `ram` is all zero. It holds the results afterwards (ring3::read_outcomes, ring3::arena_of), and no vCPU runs.
    /// kTimeout: the guest had not ended at the deadline. A vCPU that can't be taken out of the kernel then ends this
    /// process with status 1 and a message: its memory can't be given back.
    [[nodiscard]] Result<Times> run(std::span<std::byte> ram, const ring3::Parameters& parameters,
                                    std::uint64_t deadline_ms);

    /// The guest can't go on, says whoever provides its memory.
    void fail(const Error& error);

  private:
    [[nodiscard]] Result<std::vector<vcpu::Vcpu>> make_vcpus(const vcpu::System& system, const vcpu::Vm& vm) const;
    [[nodiscard]] Status wait_until_done(std::uint64_t deadline_ms);

    vcpu::Next port_write(std::uint16_t port, std::span<const std::byte> from) override;
    vcpu::Next port_read(std::uint16_t port, std::span<std::byte> into) override;
    vcpu::Next mmio_read(Gpa address, std::span<std::byte> into) override;
    vcpu::Next mmio_write(Gpa address, std::span<const std::byte> from) override;
    vcpu::Next meet(ring3::Step step);
    vcpu::Next leave();

    OnStep on_step_;
    std::uint32_t vcpus_ = 0;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Error> failure_;
    std::uint32_t arrived_ = 0;   ///< vCPUs at the present meeting
    std::uint64_t meetings_ = 0;  ///< that have ended
    std::uint32_t done_ = 0;      ///< vCPUs
    std::uint64_t start_ns_ = 0;
    std::uint64_t prepared_ns_ = 0;
    std::uint64_t worked_ns_ = 0;
};

}  // namespace splitvisor::bench
