#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/text.h"
#include "vmm/boot/pieces.h"

namespace splitvisor::vmm::boot {
namespace {

// Offsets in the file's first sectors and, the same, in the zero page (boot.rst, "The Real-Mode Kernel Header").
constexpr std::size_t kSetupSectors = 0x1f1;
constexpr std::size_t kCodeParagraphs = 0x1f4;  ///< units of 16 bytes
constexpr std::size_t kBootFlag = 0x1fe;
constexpr std::size_t kHeaderLength = 0x201;  ///< counted from 0x202
constexpr std::size_t kHeaderMagic = 0x202;
constexpr std::size_t kProtocol = 0x206;
constexpr std::size_t kLoaderType = 0x210;
constexpr std::size_t kRamdiskAddress = 0x218;
constexpr std::size_t kRamdiskSize = 0x21c;
constexpr std::size_t kCommandLinePointer = 0x228;
constexpr std::size_t kInitrdMax = 0x22c;
constexpr std::size_t kAlignment = 0x230;
constexpr std::size_t kRelocatable = 0x234;
constexpr std::size_t kLoadFlags = 0x236;
constexpr std::size_t kCommandLineSize = 0x238;
constexpr std::size_t kPreferredAddress = 0x258;
constexpr std::size_t kInitSize = 0x260;
constexpr std::size_t kHeaderEnd = 0x264;

// Offsets in the zero page only (Documentation/arch/x86/zero-page.rst).
constexpr std::size_t kRsdpPointer = 0x070;
constexpr std::size_t kMapCount = 0x1e8;
constexpr std::size_t kHeaderStart = 0x1f1;
constexpr std::size_t kMap = 0x2d0;
constexpr std::size_t kMapEntryBytes = 20;
constexpr std::size_t kMapCapacity = 128;

constexpr std::uint16_t kBootFlagValue = 0xaa55;
constexpr std::uint32_t kMagicValue = 0x53726448;     // "HdrS"
constexpr std::uint16_t kOldestProtocol = 0x020c;     // 2.12 brought the 64-bit entry
constexpr std::uint16_t kHas64BitEntry = 1;
constexpr std::uint8_t kUnknownLoader = 0xff;
constexpr std::uint64_t kEntryOffset = 0x200;
constexpr std::size_t kSectorBytes = 512;

struct SetupHeader {
    std::size_t code_offset = 0;  ///< in the file: where the 64-bit kernel starts
    std::size_t copied_end = 0;   ///< end of what goes from the file into the zero page
    std::uint64_t initrd_max = 0;
    std::uint64_t alignment = 0;
    bool relocatable = false;
    std::uint64_t command_line_size = 0;
    std::uint64_t preferred_address = 0;
    std::uint64_t init_size = 0;
};

Error bad(std::string_view what) { return Error{ErrorCode::kInvalid, "kernel: " + std::string{what}}; }

Result<SetupHeader> parse_header(std::span<const std::byte> file)
{
    if (file.size() < kHeaderEnd || load<std::uint16_t>(file, kBootFlag) != kBootFlagValue ||
        load<std::uint32_t>(file, kHeaderMagic) != kMagicValue) {
        return bad("neither a bzImage nor an ELF file");
    }
    if (load<std::uint16_t>(file, kProtocol) < kOldestProtocol) return bad("boot protocol older than 2.12");
    if ((load<std::uint16_t>(file, kLoadFlags) & kHas64BitEntry) == 0) return bad("no 64-bit entry point");
    SetupHeader header;
    const auto sectors = load<std::uint8_t>(file, kSetupSectors);
    header.code_offset = (std::size_t{sectors == 0 ? std::uint8_t{4} : sectors} + 1) * kSectorBytes;
    header.copied_end = kHeaderMagic + load<std::uint8_t>(file, kHeaderLength);
    header.initrd_max = load<std::uint32_t>(file, kInitrdMax);
    header.alignment = load<std::uint32_t>(file, kAlignment);
    header.relocatable = load<std::uint8_t>(file, kRelocatable) != 0;
    header.command_line_size = load<std::uint32_t>(file, kCommandLineSize);
    header.preferred_address = load<std::uint64_t>(file, kPreferredAddress);
    header.init_size = load<std::uint32_t>(file, kInitSize);
    if (header.code_offset >= file.size()) return bad("cut off before its code");
    // More may follow: a signature.
    const auto code_bytes = std::uint64_t{load<std::uint32_t>(file, kCodeParagraphs)} * 16;
    if (code_bytes > file.size() - header.code_offset) return bad("cut off in its code");
    if (header.copied_end < kHeaderEnd || header.copied_end > kMap) return bad("setup header of a wrong length");
    if (header.alignment == 0 || (header.alignment & (header.alignment - 1)) != 0) {
        return bad("alignment that is no power of two");
    }
    return header;
}

bool fits(Gpa start, std::uint64_t bytes, Gpa end) { return start < end && bytes <= end - start; }

/// Where the kernel goes: where it prefers, or else, when it can move, as low as possible.
Result<Extent> place(const SetupHeader& header, std::size_t code_bytes, ByteCount memory)
{
    const auto bytes = std::max<std::uint64_t>(header.init_size, code_bytes);
    const auto end = layout::low_ram_end(memory);
    const Gpa preferred{header.preferred_address};
    if (preferred >= layout::kHighRamStart && fits(preferred, bytes, end)) return Extent{preferred, bytes};
    const Gpa lowest{(layout::kHighRamStart.value() + header.alignment - 1) & ~(header.alignment - 1)};
    if (header.relocatable && fits(lowest, bytes, end)) return Extent{lowest, bytes};
    return Error{ErrorCode::kNoRoom, "the kernel needs " + format_size(ByteCount{bytes}) + " in one piece, which " +
                                         format_size(memory) + " of memory do not have"};
}

void put_map(std::span<std::byte> zero_page, ByteCount memory)
{
    const auto map = layout::firmware_map(memory);
    const auto count = std::min(map.size(), kMapCapacity);
    for (std::size_t i = 0; i < count; ++i) {
        const auto offset = kMap + i * kMapEntryBytes;
        store(zero_page, offset, map[i].start.value());
        store(zero_page, offset + 8, map[i].size.value());
        store(zero_page, offset + 16, static_cast<std::uint32_t>(map[i].type));
    }
    store(zero_page, kMapCount, static_cast<std::uint8_t>(count));
}

/// Page tables that map the low 4 GiB one to one with 2 MiB pages, as the 64-bit protocol wants.
Status put_page_tables(const GuestMemory& memory)
{
    constexpr std::uint64_t kPresentWritable = 3;
    constexpr std::uint64_t kLargePage = 1u << 7;
    constexpr std::size_t kEntries = kPageBytes / sizeof(std::uint64_t);
    std::array<std::uint64_t, 6 * kEntries> tables{};
    static_assert(sizeof tables == layout::kPageTablesBytes);
    const auto base = layout::kPageTables.value();
    tables[0] = (base + kPageBytes) | kPresentWritable;
    for (std::size_t gib = 0; gib < 4; ++gib) {
        tables[kEntries + gib] = (base + (2 + gib) * kPageBytes) | kPresentWritable;
    }
    for (std::size_t i = 0; i < 4 * kEntries; ++i) tables[2 * kEntries + i] = (i << 21) | kLargePage | kPresentWritable;
    return put(memory, layout::kPageTables, std::as_bytes(std::span{tables}), "the boot page tables");
}

constexpr std::array<std::uint64_t, 4> kGdtEntries{
    0, 0,
    0x00af'9b00'0000'ffff,  // selector 0x10: flat 64-bit code
    0x00cf'9300'0000'ffff,  // selector 0x18: flat data
};

}  // namespace

Result<vcpu::EntryState> load_bzimage(const GuestMemory& memory, const KernelInput& input)
{
    const auto header = parse_header(input.kernel);
    if (!header) return header.error();
    const auto code = input.kernel.subspan(header->code_offset);
    const auto extent = place(*header, code.size(), memory.size());
    if (!extent) return extent.error();
    SPLITVISOR_TRY(put(memory, extent->start, code, "the kernel"));
    SPLITVISOR_TRY(put_command_line(memory, input.command_line, header->command_line_size));
    const auto initrd = put_initrd(memory, input.initrd, *extent, header->initrd_max);
    if (!initrd) return initrd.error();

    std::array<std::byte, kPageBytes> zero_page{};
    const auto copied = input.kernel.subspan(kHeaderStart, std::min(header->copied_end, input.kernel.size()) - kHeaderStart);
    std::ranges::copy(copied, zero_page.begin() + kHeaderStart);
    store(zero_page, kLoaderType, kUnknownLoader);
    store(zero_page, kRamdiskAddress, static_cast<std::uint32_t>(initrd->value()));
    store(zero_page, kRamdiskSize, static_cast<std::uint32_t>(input.initrd.size()));
    store(zero_page, kCommandLinePointer, static_cast<std::uint32_t>(layout::kCommandLine.value()));
    store(zero_page, kRsdpPointer, input.rsdp.value());
    put_map(zero_page, memory.size());
    SPLITVISOR_TRY(put(memory, layout::kZeroPage, zero_page, "the boot parameters"));
    SPLITVISOR_TRY(put_page_tables(memory));
    SPLITVISOR_TRY(put(memory, layout::kGdt, std::as_bytes(std::span{kGdtEntries}), "the boot descriptor table"));

    vcpu::EntryState entry;
    entry.instruction = (extent->start + kEntryOffset).value();
    entry.page_tables = layout::kPageTables;
    entry.gdt = layout::kGdt;
    entry.gdt_limit = sizeof kGdtEntries - 1;
    entry.rsi = layout::kZeroPage.value();
    return entry;
}

}  // namespace splitvisor::vmm::boot
