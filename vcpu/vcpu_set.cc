#include "vcpu/vcpu_set.h"

#include <chrono>
#include <string>

#include "base/log.h"

namespace splitvisor::vcpu {

VcpuSet::VcpuSet(std::vector<Vcpu> vcpus, ExitHandler& handler, OnEnd on_end)
    : vcpus_{std::move(vcpus)}, handler_{handler}, on_end_{std::move(on_end)}, parked_(vcpus_.size(), false)
{
    for (std::size_t i = 0; i < vcpus_.size(); ++i) SPLITVISOR_CHECK(vcpus_[i].id().value() == i);
}

VcpuSet::~VcpuSet()
{
    {
        const std::lock_guard lock{mutex_};
        goal_ = Goal::kStop;
    }
    changed_.notify_all();
    if (!threads_.empty()) {
        for (auto& vcpu : vcpus_) vcpu.kick();
    }
}

void VcpuSet::start()
{
    threads_.reserve(vcpus_.size());
    for (auto& vcpu : vcpus_) {
        threads_.emplace_back("vcpu" + std::to_string(vcpu.id().value()), [this, &vcpu] { run_vcpu(vcpu); });
    }
}

void VcpuSet::run_vcpu(Vcpu& vcpu)
{
    bool ended = false;
    while (wait_for_permission(vcpu, ended)) {
        const auto end = vcpu.run(handler_);
        if (end.kind == RunEnd::Kind::kKicked) continue;
        ended = true;
        if (end.kind != RunEnd::Kind::kStopped) on_end_(vcpu.id(), end);
    }
}

bool VcpuSet::wait_for_permission(Vcpu& vcpu, bool ended)
{
    const auto index = vcpu.id().value();
    std::unique_lock lock{mutex_};
    if (goal_ == Goal::kRun && !ended) return true;
    parked_[index] = true;
    ++parked_count_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return goal_ == Goal::kStop || (goal_ == Goal::kRun && !ended); });
    if (goal_ == Goal::kStop) return false;
    parked_[index] = false;
    --parked_count_;
    lock.unlock();
    vcpu.mark_clock_paused();
    return true;
}

Error VcpuSet::still_running() const
{
    std::size_t index = 0;
    while (index + 1 < parked_.size() && parked_[index]) ++index;
    return Error{ErrorCode::kTimeout, "vCPU " + std::to_string(index) + " still waits in the kernel"};
}

Status VcpuSet::reach(Goal goal, std::uint64_t deadline_ms)
{
    {
        const std::lock_guard lock{mutex_};
        goal_ = goal;
    }
    changed_.notify_all();
    if (threads_.empty()) return {};
    for (auto& vcpu : vcpus_) vcpu.kick();
    std::unique_lock lock{mutex_};
    const auto all_parked = [&] { return parked_count_ == vcpus_.size(); };
    if (!changed_.wait_for(lock, std::chrono::milliseconds{deadline_ms}, all_parked)) return still_running();
    return {};
}

Status VcpuSet::pause(std::uint64_t deadline_ms) { return reach(Goal::kPause, deadline_ms); }

void VcpuSet::resume()
{
    {
        const std::lock_guard lock{mutex_};
        if (goal_ == Goal::kPause) goal_ = Goal::kRun;
    }
    changed_.notify_all();
}

Status VcpuSet::stop(std::uint64_t deadline_ms)
{
    SPLITVISOR_TRY(reach(Goal::kStop, deadline_ms));
    threads_.clear();
    return {};
}

ExitCounts VcpuSet::exits() const
{
    ExitCounts sum{};
    for (const auto& vcpu : vcpus_) {
        const auto counts = vcpu.exits();
        for (std::size_t i = 0; i < kExitCauses; ++i) sum[i] += counts[i];
    }
    return sum;
}

}  // namespace splitvisor::vcpu
