#include "tests/bench/ring3_guest.h"

#include <unistd.h>

#include <chrono>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "guests/ring3/machine_image.h"
#include "vcpu/cpuid.h"
#include "vcpu/entry_state.h"
#include "vcpu/kvm.h"
#include "vcpu/vcpu_set.h"

namespace splitvisor::bench {

using vcpu::Next;

namespace {

/// A vCPU leaves the kernel within microseconds, unless it waits for a page that nobody brings.
constexpr std::uint64_t kStopDeadlineMs = 5'000;

Status put_at_entry(vcpu::Vcpu& vcpu)
{
    const auto point = ring3::entry_point(vcpu.id());
    vcpu::EntryState entry;
    entry.privilege = 3;
    entry.instruction = point.instruction;
    entry.stack = point.stack;
    entry.page_tables = point.page_tables;
    entry.rsi = point.rsi;
    SPLITVISOR_TRY(vcpu.reset_fpu());
    return vcpu::enter_at(vcpu, entry);
}

}  // namespace

Result<std::vector<vcpu::Vcpu>> Ring3Guest::make_vcpus(const vcpu::System& system, const vcpu::Vm& vm) const
{
    const auto cpuid = system.supported_cpuid();
    if (!cpuid) return cpuid.error();
    std::vector<vcpu::Vcpu> vcpus;
    for (std::uint32_t id = 0; id < vcpus_; ++id) {
        auto vcpu = vcpu::Vcpu::create(vm, VcpuId{id});
        if (!vcpu) return vcpu.error();
        SPLITVISOR_TRY(vcpu->set_cpuid(vcpu::make_cpuid(*cpuid, VcpuId{id}, {.vcpus = vcpus_})));
        SPLITVISOR_TRY(put_at_entry(*vcpu));
        vcpus.push_back(std::move(*vcpu));
    }
    return vcpus;
}

Result<Ring3Guest::Times> Ring3Guest::run(std::span<std::byte> ram, const ring3::Parameters& parameters,
                                          std::uint64_t deadline_ms)
{
    SPLITVISOR_CHECK(vcpus_ == 0);
    vcpus_ = parameters.vcpus;
    const auto system = vcpu::System::open();
    if (!system) return system.error();
    auto vm = system->create_vm();
    if (!vm) return vm.error();
    ring3::build_machine(ram, parameters);
    SPLITVISOR_TRY(vm->add_memory(0, Gpa{0}, ram));
    auto vcpus = make_vcpus(*system, *vm);
    if (!vcpus) return vcpus.error();

    vcpu::VcpuSet set{std::move(*vcpus), *this, [this](VcpuId id, const vcpu::RunEnd& end) {
                          fail(Error{ErrorCode::kIo, "vCPU " + std::to_string(id.value()) + ": " + end.detail});
                      }};
    start_ns_ = now_ns();
    set.start();
    const auto status = wait_until_done(deadline_ms);
    if (const auto stopped = set.stop(kStopDeadlineMs); !stopped) {
        log_error("the guest can't be ended",
                  field("cause", stopped.error()) + (status ? "" : field("after", status.error())));
        ::_exit(1);
    }
    if (!status) return status.error();
    if (prepared_ns_ == 0 || worked_ns_ == 0) return Error{ErrorCode::kCorrupt, "the guest ended without any work"};
    return Times{.prepare_ns = prepared_ns_ - start_ns_, .work_ns = worked_ns_ - prepared_ns_};
}

Status Ring3Guest::wait_until_done(std::uint64_t deadline_ms)
{
    std::unique_lock lock{mutex_};
    const bool ended = changed_.wait_for(lock, std::chrono::milliseconds{deadline_ms},
                                         [&] { return failure_ || done_ == vcpus_; });
    if (failure_) return *failure_;
    if (ended) return {};
    failure_ = Error{ErrorCode::kTimeout, "the guest had not ended after " + std::to_string(deadline_ms / 1000) + " s"};
    changed_.notify_all();
    return *failure_;
}

void Ring3Guest::fail(const Error& error)
{
    const std::lock_guard lock{mutex_};
    if (!failure_) failure_ = error;
    changed_.notify_all();
}

Next Ring3Guest::port_write(std::uint16_t port, std::span<const std::byte> from)
{
    if (port == ring3::kDonePort) return leave();
    if (port == ring3::kMeetingPort && from.size() == sizeof(ring3::Step)) {
        return meet(static_cast<ring3::Step>(load<std::uint32_t>(from)));
    }
    fail(Error{ErrorCode::kCorrupt, "the guest wrote to port " + std::to_string(port)});
    return Next::kStop;
}

Next Ring3Guest::meet(ring3::Step step)
{
    const auto now = now_ns();
    std::unique_lock lock{mutex_};
    const auto meeting = meetings_;
    if (++arrived_ < vcpus_) {
        // The deadline is that of the whole run: wait_until_done sets failure_ then.
        changed_.wait(lock, [&] { return failure_ || meetings_ != meeting; });
        return failure_ ? Next::kStop : Next::kContinue;
    }
    if (step == ring3::Step::kPrepared) prepared_ns_ = now;
    if (step == ring3::Step::kWorked) worked_ns_ = now;
    on_step_(step);
    arrived_ = 0;
    ++meetings_;
    changed_.notify_all();
    return Next::kContinue;
}

Next Ring3Guest::leave()
{
    const std::lock_guard lock{mutex_};
    ++done_;
    changed_.notify_all();
    return Next::kStop;
}

Next Ring3Guest::port_read(std::uint16_t port, std::span<std::byte>)
{
    fail(Error{ErrorCode::kCorrupt, "the guest read from port " + std::to_string(port)});
    return Next::kStop;
}

Next Ring3Guest::mmio_read(Gpa address, std::span<std::byte>)
{
    fail(Error{ErrorCode::kCorrupt, "the guest read at " + std::to_string(address.value()) + ", which is not RAM"});
    return Next::kStop;
}

Next Ring3Guest::mmio_write(Gpa address, std::span<const std::byte>)
{
    fail(Error{ErrorCode::kCorrupt, "the guest wrote at " + std::to_string(address.value()) + ", which is not RAM"});
    return Next::kStop;
}

}  // namespace splitvisor::bench
