#include "vmm/boot/loader.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/text.h"
#include "vmm/boot/pieces.h"

namespace splitvisor::vmm::boot {

Status put(const GuestMemory& memory, Gpa where, std::span<const std::byte> bytes, std::string_view what)
{
    if (memory.write(where, bytes)) return {};
    return Error{ErrorCode::kNoRoom, std::string{what} + " does not fit into " + format_size(memory.size()) + " of memory"};
}

Status put_command_line(const GuestMemory& memory, std::string_view text, std::uint64_t limit)
{
    const auto most = std::min(limit, layout::kCommandLineBytes - 1);
    if (text.size() > most) {
        return Error{ErrorCode::kInvalid, "the kernel command line has " + std::to_string(text.size()) +
                                              " characters; this kernel takes " + std::to_string(most)};
    }
    if (text.find('\0') != std::string_view::npos) {
        return Error{ErrorCode::kInvalid, "the kernel command line holds a zero byte"};
    }
    std::string terminated{text};
    terminated += '\0';
    return put(memory, layout::kCommandLine, std::as_bytes(std::span{terminated}), "the kernel command line");
}

Result<Gpa> put_initrd(const GuestMemory& memory, std::span<const std::byte> initrd, const Extent& kernel,
                       std::uint64_t highest_byte)
{
    if (initrd.empty()) return Gpa{0};
    constexpr std::uint64_t kPageMask = kPageBytes - 1;
    const auto ceiling =
        highest_byte < layout::low_ram_end(memory.size()).value() ? highest_byte + 1 : layout::low_ram_end(memory.size()).value();
    const auto needed = (initrd.size() + kPageMask) & ~kPageMask;
    if (needed > ceiling || ((ceiling - needed) & ~kPageMask) < kernel.end().value()) {
        return Error{ErrorCode::kNoRoom, "the initial ramdisk (" + format_size(ByteCount{initrd.size()}) +
                                             ") does not fit beside the kernel into " + format_size(memory.size()) +
                                             " of memory"};
    }
    const Gpa where{(ceiling - needed) & ~kPageMask};
    SPLITVISOR_TRY(put(memory, where, initrd, "the initial ramdisk"));
    return where;
}

Result<vcpu::EntryState> load_kernel(const GuestMemory& memory, const KernelInput& input)
{
    constexpr std::array<std::byte, 4> kElfMagic{std::byte{0x7f}, std::byte{'E'}, std::byte{'L'}, std::byte{'F'}};
    if (input.kernel.size() >= kElfMagic.size() && std::ranges::equal(input.kernel.first(4), kElfMagic)) {
        return load_pvh(memory, input);
    }
    return load_bzimage(memory, input);
}

}  // namespace splitvisor::vmm::boot
