#pragma once

#include <cstdint>
#include <string>

#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"

// What both boot protocols share. Private to this folder.
namespace splitvisor::vmm::boot {

/// Where a kernel occupies RAM while it starts.
struct Extent {
    Gpa start;
    std::uint64_t bytes = 0;
    [[nodiscard]] Gpa end() const { return start + bytes; }
};

/// Copies into guest RAM; `what` names it in the error where RAM is too small.
[[nodiscard]] Status put(const GuestMemory& memory, Gpa where, std::span<const std::byte> bytes, std::string_view what);

/// Places the command line, with its terminator, at layout::kCommandLine. `limit` is the longest the kernel takes.
[[nodiscard]] Status put_command_line(const GuestMemory& memory, std::string_view text, std::uint64_t limit);

/// Places the ramdisk, page-aligned, as high as RAM below 4 GiB and `highest_byte` allow, above the kernel.
/// An empty ramdisk has address 0.
[[nodiscard]] Result<Gpa> put_initrd(const GuestMemory& memory, std::span<const std::byte> initrd, const Extent& kernel,
                                     std::uint64_t highest_byte);

Result<vcpu::EntryState> load_bzimage(const GuestMemory& memory, const KernelInput& input);
Result<vcpu::EntryState> load_pvh(const GuestMemory& memory, const KernelInput& input);

}  // namespace splitvisor::vmm::boot
