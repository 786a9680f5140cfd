#pragma once

#include <cstdint>
#include <vector>

#include "base/units.h"
#include "vmm/acpi/aml.h"

namespace splitvisor::vmm::acpi {

/// What the guest is told about the machine. Addresses that never change come from boot/layout.h.
struct MachineDescription {
    std::uint32_t vcpus = 1;           ///< at most kMaxVcpus; APIC id = VcpuId
    std::uint32_t virtio_devices = 0;  ///< windows and interrupts as in boot/layout.h
};

/// APIC ids are 8 bits wide in the tables we make, and 255 is the broadcast id.
inline constexpr std::uint32_t kMaxVcpus = 254;

/// The tables one by one, for tests, and as they lie in guest memory.
struct Tables {
    Bytes dsdt;
    Bytes fadt;
    Bytes madt;
    Bytes xsdt;
    Bytes image;  ///< all of it, RSDP first; to be copied to the address given to build_tables
};

/// Hardware-reduced ACPI 6.4 (chapter 5.2, section 4.1): one port powers off and resets, a generic event device tells
/// of the power button, the rest is memory-mapped. Pure.
[[nodiscard]] Tables build_tables(const MachineDescription& machine, Gpa where);

}  // namespace splitvisor::vmm::acpi
