#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "vcpu/entry_state.h"
#include "vmm/guest_memory.h"

namespace splitvisor::vmm::boot {

/// What a kernel is started with. The kernel and the initial ramdisk are files whose content nobody has checked.
struct KernelInput {
    std::span<const std::byte> kernel;  ///< a bzImage, or an ELF file with a PVH note
    std::span<const std::byte> initrd;  ///< may be empty
    std::string_view command_line;      ///< without terminator
    Gpa rsdp{};                         ///< the ACPI root
};

/// Puts the kernel, its ramdisk, command line and boot information into guest RAM and says where the first vCPU starts.
/// A bzImage is entered by the 64-bit boot protocol (Documentation/arch/x86/boot.rst), an ELF file as a PVH guest
/// (xen/include/public/arch-x86/hvm/start_info.h). RAM must read as zero where nothing has been written.
/// kInvalid says what is wrong with the input; kNoRoom how much memory it would take.
Result<vcpu::EntryState> load_kernel(const GuestMemory& memory, const KernelInput& input);

}  // namespace splitvisor::vmm::boot
