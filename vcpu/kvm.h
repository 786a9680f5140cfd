#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/units.h"

namespace splitvisor::vcpu {

class Vm;

/// An open /dev/kvm: what this host's KVM can do, and the source of virtual machines.
/// Immutable after open; any thread.
class System {
  public:
    /// Fails with one line that tells a user what to do where KVM is missing, closed to us, or not version 12.
    static Result<System> open(const std::string& path = "/dev/kvm");

    /// KVM_CHECK_EXTENSION: 0 where the capability is absent.
    [[nodiscard]] int extension(unsigned capability) const;

    /// The most vCPUs a machine may have here (KVM_CAP_MAX_VCPUS).
    [[nodiscard]] std::uint32_t max_vcpus() const;

    /// KVM_GET_SUPPORTED_CPUID.
    [[nodiscard]] Result<std::vector<kvm_cpuid_entry2>> supported_cpuid() const;

    /// KVM_GET_MSR_INDEX_LIST.
    [[nodiscard]] Result<std::vector<std::uint32_t>> msr_indices() const;

    [[nodiscard]] Result<Vm> create_vm() const;

  private:
    System(Fd fd, std::size_t run_bytes) : fd_{std::move(fd)}, run_bytes_{run_bytes} {}
    Fd fd_;
    std::size_t run_bytes_;
};

/// One virtual machine. Build order (Documentation/virt/kvm/api.rst): set_fixed_pages, create_irqchip, memory slots,
/// then vCPUs. The kernel object lives until this and every Vcpu of it are gone. Calls are thread-safe: KVM locks.
class Vm {
  public:
    /// Four pages of guest-physical space, below 4 GiB and never RAM, that Intel hosts need: the identity map for real
    /// mode (one page) and, right behind it, the task state segment (three pages).
    [[nodiscard]] Status set_fixed_pages(Gpa identity_map);

    /// The in-kernel local APICs, IOAPIC and 8259 pair.
    [[nodiscard]] Status create_irqchip();

    /// Shows `host` to the guest at `start`; both page-aligned. `host` must stay mapped as long as the machine lives.
    [[nodiscard]] Status add_memory(std::uint32_t slot, Gpa start, std::span<std::byte> host);

    /// A signal on `event` becomes an edge on interrupt `gsi` (KVM_IRQFD). Needs the irqchip.
    [[nodiscard]] Status attach_interrupt(const EventFd& event, std::uint32_t gsi);

    /// A 4-byte guest write of `value` at `address` becomes a signal on `event`, without an exit (KVM_IOEVENTFD).
    [[nodiscard]] Status add_doorbell(Gpa address, std::uint32_t value, const EventFd& event);
    [[nodiscard]] Status remove_doorbell(Gpa address, std::uint32_t value, const EventFd& event);

  private:
    friend class System;
    friend class Vcpu;
    Vm(Fd fd, std::size_t run_bytes) : fd_{std::move(fd)}, run_bytes_{run_bytes} {}
    Fd fd_;
    std::size_t run_bytes_;  ///< of the run page group each vCPU shares with the kernel
};

}  // namespace splitvisor::vcpu
