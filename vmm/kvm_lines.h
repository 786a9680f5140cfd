#pragma once

#include <memory>
#include <utility>

#include "base/fd.h"
#include "vcpu/kvm.h"
#include "vmm/device.h"

namespace splitvisor::vmm {

/// An interrupt line of a KVM machine: an eventfd that KVM turns into an edge. Thread-safe.
class KvmInterruptLine final : public InterruptLine {
  public:
    static Result<std::unique_ptr<KvmInterruptLine>> create(vcpu::Vm& vm, std::uint32_t gsi)
    {
        auto event = EventFd::create();
        if (!event) return event.error();
        SPLITVISOR_TRY(vm.attach_interrupt(*event, gsi));
        return std::unique_ptr<KvmInterruptLine>{new KvmInterruptLine{std::move(*event)}};
    }
    void raise() override { event_.signal(); }

  private:
    explicit KvmInterruptLine(EventFd event) : event_{std::move(event)} {}
    EventFd event_;
};

/// Doorbells as KVM's ioeventfds. Thread-safe.
class KvmDoorbells final : public DoorbellRegistry {
  public:
    explicit KvmDoorbells(vcpu::Vm& vm) : vm_{vm} {}
    [[nodiscard]] Status add(Gpa address, std::uint32_t value, const EventFd& event) override
    {
        return vm_.add_doorbell(address, value, event);
    }
    void remove(Gpa address, std::uint32_t value, const EventFd& event) override
    {
        // Fails only for what was never added, which changes nothing.
        (void)vm_.remove_doorbell(address, value, event).ok();
    }

  private:
    vcpu::Vm& vm_;
};

}  // namespace splitvisor::vmm
