#include <algorithm>
#include <array>
#include <optional>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/text.h"
#include "vmm/boot/pieces.h"

namespace splitvisor::vmm::boot {
namespace {

// ELF-64 (gABI, chapters 4 and 5). Only what a loader reads; the layouts are those of the file.
struct ElfHeader {
    std::array<std::uint8_t, 16> ident;
    std::uint16_t type;
    std::uint16_t machine;
    std::uint32_t version;
    std::uint64_t entry;
    std::uint64_t program_headers;
    std::uint64_t section_headers;
    std::uint32_t flags;
    std::uint16_t header_bytes;
    std::uint16_t program_header_bytes;
    std::uint16_t program_header_count;
    std::uint16_t section_header_bytes;
    std::uint16_t section_header_count;
    std::uint16_t section_names;
};
static_assert(sizeof(ElfHeader) == 64);

struct ProgramHeader {
    std::uint32_t type;
    std::uint32_t flags;
    std::uint64_t offset;
    std::uint64_t virtual_address;
    std::uint64_t physical_address;
    std::uint64_t file_bytes;
    std::uint64_t memory_bytes;
    std::uint64_t alignment;
};
static_assert(sizeof(ProgramHeader) == 56);

struct NoteHeader {
    std::uint32_t name_bytes;
    std::uint32_t descriptor_bytes;
    std::uint32_t type;
};
static_assert(sizeof(NoteHeader) == 12);

constexpr std::uint8_t kClass64 = 2;
constexpr std::uint8_t kLittleEndian = 1;
constexpr std::uint16_t kMachineX86_64 = 62;
constexpr std::uint32_t kSegmentLoad = 1;
constexpr std::uint32_t kSegmentNote = 4;
constexpr std::uint32_t kPhysicalEntryNote = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr std::size_t kMaxProgramHeaders = 128;
constexpr std::size_t kMaxNotes = 1024;

// xen/include/public/arch-x86/hvm/start_info.h, version 1.
struct StartInfo {
    std::uint32_t magic = 0x336ec578;
    std::uint32_t version = 1;
    std::uint32_t flags = 0;
    std::uint32_t modules = 0;
    std::uint64_t module_list = 0;
    std::uint64_t command_line = 0;
    std::uint64_t rsdp = 0;
    std::uint64_t memory_map = 0;
    std::uint32_t memory_map_entries = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct Module {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t command_line = 0;
    std::uint64_t reserved = 0;
};

struct MemoryMapEntry {
    std::uint64_t address;
    std::uint64_t bytes;
    std::uint32_t type;  // numbered as in e820
    std::uint32_t reserved;
};
static_assert(sizeof(Module) == 32 && sizeof(MemoryMapEntry) == 24);

Error bad(std::string_view what) { return Error{ErrorCode::kInvalid, "kernel: " + std::string{what}}; }

/// [offset, offset + length) of the file, or nothing where the file has no such part.
std::optional<std::span<const std::byte>> part(std::span<const std::byte> file, std::uint64_t offset, std::uint64_t length)
{
    if (offset > file.size() || length > file.size() - offset) return std::nullopt;
    return file.subspan(offset, length);
}

Result<std::vector<ProgramHeader>> read_program_headers(std::span<const std::byte> file)
{
    const auto head = part(file, 0, sizeof(ElfHeader));
    if (!head) return bad("ELF file cut off in its header");
    const auto elf = load<ElfHeader>(*head);
    if (elf.ident[4] != kClass64 || elf.ident[5] != kLittleEndian || elf.machine != kMachineX86_64) {
        return bad("ELF file for another machine than x86-64");
    }
    if (elf.program_header_bytes != sizeof(ProgramHeader) || elf.program_header_count > kMaxProgramHeaders) {
        return bad("ELF program headers of a wrong size or number");
    }
    const auto table =
        part(file, elf.program_headers, std::uint64_t{elf.program_header_count} * sizeof(ProgramHeader));
    if (!table) return bad("ELF file cut off in its program headers");
    std::vector<ProgramHeader> headers(elf.program_header_count);
    for (std::size_t i = 0; i < headers.size(); ++i) headers[i] = load<ProgramHeader>(*table, i * sizeof(ProgramHeader));
    return headers;
}

/// Where segments that share a byte would be put nobody could say.
bool overlap(std::vector<ProgramHeader> headers)
{
    std::erase_if(headers, [](const auto& header) { return header.type != kSegmentLoad || header.memory_bytes == 0; });
    std::ranges::sort(headers, {}, &ProgramHeader::physical_address);
    return std::ranges::adjacent_find(headers, [](const auto& one, const auto& next) {
               return next.physical_address - one.physical_address < one.memory_bytes;
           }) != headers.end();
}

Status put_segment(const GuestMemory& memory, std::span<const std::byte> file, const ProgramHeader& segment, Extent& extent)
{
    const auto bytes = part(file, segment.offset, segment.file_bytes);
    if (!bytes || segment.file_bytes > segment.memory_bytes) return bad("ELF segment cut off");
    const Gpa start{segment.physical_address};
    const auto end = layout::low_ram_end(memory.size());
    if (start < layout::kHighRamStart || start > end || segment.memory_bytes > end - start) {
        return Error{ErrorCode::kNoRoom, "the kernel does not fit into " + format_size(memory.size()) + " of memory"};
    }
    SPLITVISOR_TRY(put(memory, start, *bytes, "the kernel"));
    const auto segment_end = start + segment.memory_bytes;
    const auto first = extent.bytes == 0 ? start : std::min(extent.start, start);
    const auto last = extent.bytes == 0 ? segment_end : std::max(extent.end(), segment_end);
    extent = {first, last - first};
    return {};
}

/// The entry point in a note segment: type 18 of owner "Xen", a 4- or 8-byte address.
std::optional<std::uint64_t> find_entry_note(std::span<const std::byte> notes)
{
    constexpr auto kAligned = [](std::uint32_t bytes) { return (std::uint64_t{bytes} + 3) & ~std::uint64_t{3}; };
    for (std::size_t count = 0; count < kMaxNotes && notes.size() >= sizeof(NoteHeader); ++count) {
        const auto note = load<NoteHeader>(notes);
        notes = notes.subspan(sizeof note);
        const auto name = part(notes, 0, kAligned(note.name_bytes));
        const auto descriptor = part(notes, kAligned(note.name_bytes), note.descriptor_bytes);
        if (!name || !descriptor) return std::nullopt;
        const bool is_xen = note.name_bytes == 4 && load<std::uint32_t>(*name) == 0x006e6558;  // "Xen\0"
        if (is_xen && note.type == kPhysicalEntryNote) {
            if (descriptor->size() == 4) return load<std::uint32_t>(*descriptor);
            if (descriptor->size() == 8) return load<std::uint64_t>(*descriptor);
            return std::nullopt;
        }
        const auto whole = kAligned(note.name_bytes) + kAligned(note.descriptor_bytes);
        notes = notes.subspan(std::min<std::uint64_t>(whole, notes.size()));
    }
    return std::nullopt;
}

Status put_start_info(const GuestMemory& memory, const KernelInput& input, Gpa initrd)
{
    constexpr std::uint64_t kModuleAt = sizeof(StartInfo) + 8;
    constexpr std::uint64_t kMapAt = kModuleAt + sizeof(Module);
    std::array<std::byte, kPageBytes> page{};
    const auto map = layout::firmware_map(memory.size());
    StartInfo info;
    info.modules = input.initrd.empty() ? 0 : 1;
    info.module_list = input.initrd.empty() ? 0 : (layout::kPvhStartInfo + kModuleAt).value();
    info.command_line = layout::kCommandLine.value();
    info.rsdp = input.rsdp.value();
    info.memory_map = (layout::kPvhStartInfo + kMapAt).value();
    info.memory_map_entries = static_cast<std::uint32_t>(map.size());
    store(page, 0, info);
    store(page, kModuleAt, Module{initrd.value(), input.initrd.size(), 0, 0});
    for (std::size_t i = 0; i < map.size(); ++i) {
        store(page, kMapAt + i * sizeof(MemoryMapEntry),
              MemoryMapEntry{map[i].start.value(), map[i].size.value(), static_cast<std::uint32_t>(map[i].type), 0});
    }
    return put(memory, layout::kPvhStartInfo, page, "the boot parameters");
}

}  // namespace

Result<vcpu::EntryState> load_pvh(const GuestMemory& memory, const KernelInput& input)
{
    const auto headers = read_program_headers(input.kernel);
    if (!headers) return headers.error();
    Extent extent;
    std::optional<std::uint64_t> entry_address;
    for (const auto& header : *headers) {
        if (header.type == kSegmentLoad && header.memory_bytes > 0) {
            SPLITVISOR_TRY(put_segment(memory, input.kernel, header, extent));
        }
        if (header.type == kSegmentNote && !entry_address) {
            const auto notes = part(input.kernel, header.offset, header.file_bytes);
            if (!notes) return bad("ELF notes cut off");
            entry_address = find_entry_note(*notes);
        }
    }
    if (overlap(*headers)) return bad("ELF segments overlap");
    if (!entry_address) return bad("ELF file without a PVH entry (CONFIG_PVH)");
    const bool inside = std::ranges::any_of(*headers, [&](const auto& header) {
        return header.type == kSegmentLoad && *entry_address >= header.physical_address &&
               *entry_address - header.physical_address < header.memory_bytes;
    });
    if (!inside) return bad("PVH entry outside of the kernel");
    // The protocol has no limit of its own; Linux on x86 takes COMMAND_LINE_SIZE, 2048 with the terminator.
    constexpr std::uint64_t kLinuxCommandLine = 2047;
    SPLITVISOR_TRY(put_command_line(memory, input.command_line, kLinuxCommandLine));
    const auto initrd = put_initrd(memory, input.initrd, extent, kHoleStart.value() - 1);
    if (!initrd) return initrd.error();
    SPLITVISOR_TRY(put_start_info(memory, input, *initrd));
    vcpu::EntryState entry;
    entry.mode = vcpu::EntryState::Mode::kProtected;
    entry.instruction = *entry_address;
    entry.rbx = layout::kPvhStartInfo.value();
    return entry;
}

}  // namespace splitvisor::vmm::boot
