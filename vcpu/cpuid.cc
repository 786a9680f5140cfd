#include "vcpu/cpuid.h"

#include <algorithm>
#include <bit>

namespace splitvisor::vcpu {
namespace {

constexpr std::uint32_t bit(unsigned number) { return 1u << number; }

/// Replaces the bits [low, low + count) of a register.
void set_bits(std::uint32_t& value, unsigned low, unsigned count, std::uint32_t bits)
{
    const std::uint32_t mask = ((count < 32 ? bit(count) : 0u) - 1u) << low;
    value = (value & ~mask) | ((bits << low) & mask);
}

void set_flag(std::uint32_t& value, unsigned number, bool on)
{
    value = on ? value | bit(number) : value & ~bit(number);
}

struct Topology {
    std::uint32_t apic_id;
    std::uint32_t vcpus;
    std::uint32_t core_bits;  ///< of the APIC id that number the core within the package

    /// A count minus one as the fields of CPUID hold it: saturated, never wrapped.
    [[nodiscard]] std::uint32_t last(std::uint32_t most) const { return std::min(vcpus - 1, most); }
};

/// Features (Intel SDM 2, table 3-8; AMD APM 3, E.3.2).
void patch_leaf_1(kvm_cpuid_entry2& leaf, const Topology& topology, const CpuidPolicy& policy)
{
    set_bits(leaf.ebx, 24, 8, std::min(topology.apic_id, 255u));
    set_bits(leaf.ebx, 16, 8, std::min(bit(topology.core_bits), 255u));
    set_flag(leaf.ecx, 5, false);  // VMX
    set_flag(leaf.ecx, 24, policy.tsc_deadline);
    set_flag(leaf.ecx, 31, true);  // a hypervisor is present
    set_flag(leaf.edx, 28, topology.vcpus > 1);
}

/// Deterministic cache parameters (Intel leaf 4, AMD leaf 0x8000001D): levels 1 and 2 are private, 3 is shared by all.
void patch_cache(kvm_cpuid_entry2& leaf, const Topology& topology, bool has_core_count)
{
    const auto type = leaf.eax & 0x1f;
    if (type == 0) return;
    const auto level = (leaf.eax >> 5) & 7;
    set_bits(leaf.eax, 14, 12, level >= 3 ? topology.last(0xfff) : 0);
    if (has_core_count) set_bits(leaf.eax, 26, 6, std::min(bit(topology.core_bits) - 1, 0x3fu));
}

/// Extended topology (Intel SDM 2, leaf 0xB): thread level, core level, end.
void append_topology_leaf(std::vector<kvm_cpuid_entry2>& entries, std::uint32_t function, const Topology& topology)
{
    constexpr std::uint32_t kThread = 1;
    constexpr std::uint32_t kCore = 2;
    const auto append = [&](std::uint32_t index, std::uint32_t shift, std::uint32_t count, std::uint32_t type) {
        kvm_cpuid_entry2 leaf{};
        leaf.function = function;
        leaf.index = index;
        leaf.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        leaf.eax = shift;
        leaf.ebx = count;
        leaf.ecx = index | (type << 8);
        leaf.edx = topology.apic_id;
        entries.push_back(leaf);
    };
    append(0, 0, 1, kThread);
    append(1, topology.core_bits, topology.vcpus, kCore);
    append(2, 0, 0, 0);
}

/// Extended features of AMD (APM 3, E.4.2).
void patch_leaf_80000001(kvm_cpuid_entry2& leaf, const Topology& topology, bool is_amd)
{
    set_flag(leaf.ecx, 2, false);                                 // SVM
    if (is_amd) set_flag(leaf.ecx, 1, topology.vcpus > 1);        // CmpLegacy: the threads of leaf 1 are cores
}

/// Size identifiers of AMD (APM 3, E.4.7): core count and the width of the core number.
void patch_leaf_80000008(kvm_cpuid_entry2& leaf, const Topology& topology)
{
    leaf.ecx = topology.last(0xff) | (topology.core_bits << 12);
}

/// Processor topology of AMD (APM 3, E.4.18): one thread a core, one node.
void patch_leaf_8000001e(kvm_cpuid_entry2& leaf, const Topology& topology)
{
    leaf.eax = topology.apic_id;
    leaf.ebx = topology.apic_id & 0xff;
    leaf.ecx = 0;
    leaf.edx = 0;
}

bool is_amd_vendor(std::span<const kvm_cpuid_entry2> supported)
{
    const auto* vendor = find_leaf(supported, 0);
    if (vendor == nullptr) return false;
    constexpr std::uint32_t kAuth = 0x68747541;   // "Auth"enticAMD
    constexpr std::uint32_t kHygo = 0x6f677948;   // "Hygo"nGenuine
    return vendor->ebx == kAuth || vendor->ebx == kHygo;
}

}  // namespace

const kvm_cpuid_entry2* find_leaf(std::span<const kvm_cpuid_entry2> entries, std::uint32_t function, std::uint32_t index)
{
    for (const auto& leaf : entries) {
        if (leaf.function != function) continue;
        if ((leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) == 0 || leaf.index == index) return &leaf;
    }
    return nullptr;
}

std::vector<kvm_cpuid_entry2> make_cpuid(std::span<const kvm_cpuid_entry2> supported, VcpuId id,
                                         const CpuidPolicy& policy)
{
    const Topology topology{id.value(), policy.vcpus, static_cast<std::uint32_t>(std::bit_width(policy.vcpus - 1))};
    const bool is_amd = is_amd_vendor(supported);
    const auto* vendor = find_leaf(supported, 0);
    const std::uint32_t last_leaf = vendor != nullptr ? vendor->eax : 0;
    std::vector<kvm_cpuid_entry2> entries;
    for (auto leaf : supported) {
        switch (leaf.function) {
        case 0x1: patch_leaf_1(leaf, topology, policy); break;
        case 0x4: patch_cache(leaf, topology, true); break;
        case 0xb:
        case 0x1f: continue;
        case 0x80000001: patch_leaf_80000001(leaf, topology, is_amd); break;
        case 0x80000008: if (is_amd) patch_leaf_80000008(leaf, topology); break;
        case 0x8000000a: continue;  // SVM's own features
        case 0x8000001d: patch_cache(leaf, topology, false); break;
        case 0x8000001e: patch_leaf_8000001e(leaf, topology); break;
        default: break;
        }
        entries.push_back(leaf);
    }
    if (last_leaf >= 0xb) append_topology_leaf(entries, 0xb, topology);
    if (last_leaf >= 0x1f) append_topology_leaf(entries, 0x1f, topology);
    return entries;
}

}  // namespace splitvisor::vcpu
