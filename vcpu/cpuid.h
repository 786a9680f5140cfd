#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/units.h"

namespace splitvisor::vcpu {

/// What a vNode's processors look like, apart from what the host's are.
struct CpuidPolicy {
    std::uint32_t vcpus = 1;         ///< in the machine: one package of single-threaded cores, APIC id = VcpuId
    bool tsc_deadline = false;       ///< KVM_CAP_TSC_DEADLINE_TIMER: KVM_GET_SUPPORTED_CPUID does not say it
};

/// The CPUID of one vCPU: `supported` is what KVM_GET_SUPPORTED_CPUID returned. Pure.
/// All that KVM supports is passed on, but: hardware virtualisation (VMX, SVM) is hidden, identity and topology leaves
/// (1, 4, 0xB, 0x1F; AMD 0x80000001, 0x80000008, 0x8000001D, 0x8000001E) describe this vCPU in this machine, and the
/// hypervisor bit is set. The KVM leaves, kvmclock and asynchronous page faults among them, are as KVM reports them.
[[nodiscard]] std::vector<kvm_cpuid_entry2> make_cpuid(std::span<const kvm_cpuid_entry2> supported, VcpuId id,
                                                       const CpuidPolicy& policy);

/// Finds a leaf; for leaves without a subleaf `index` is ignored. Null where it is absent.
[[nodiscard]] const kvm_cpuid_entry2* find_leaf(std::span<const kvm_cpuid_entry2> entries, std::uint32_t function,
                                                std::uint32_t index = 0);

}  // namespace splitvisor::vcpu
