#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <random>

#include "fixtures.h"
#include "kernel_images.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"

namespace splitvisor::vmm::test {
namespace {

using boot::load_kernel;
using vcpu::EntryState;

constexpr std::uint64_t kSmall = 64 * kMiB;

struct Loading {
    explicit Loading(std::uint64_t memory_bytes = kSmall) : memory{memory_bytes} {}

    Result<EntryState> load(const Image& kernel)
    {
        return load_kernel(*memory, {kernel, initrd, command_line, Gpa{0xe0000}});
    }
    /// The code of the error, which must be one clear line.
    ErrorCode refusal(const Image& kernel, std::string_view says)
    {
        const auto entry = load(kernel);
        BOOST_REQUIRE(!entry.ok());
        BOOST_TEST(contains(entry.error().message(), says), entry.error().message());
        BOOST_TEST(!contains(entry.error().message(), "\n"));
        return entry.error().code();
    }

    LocalMemory memory;
    Image initrd;
    std::string command_line = "console=ttyS0";
};

template <typename T>
Image with(Image image, std::size_t offset, T value)
{
    poke(image, offset, value);
    return image;
}

struct MapEntry {
    std::uint64_t start;
    std::uint64_t bytes;
    std::uint32_t type;
    bool operator==(const MapEntry&) const = default;
};
std::ostream& operator<<(std::ostream& stream, const MapEntry& entry)
{
    return stream << std::hex << entry.start << "+" << entry.bytes << " type " << entry.type;
}

std::vector<MapEntry> expected_map(std::uint64_t memory)
{
    const auto low = std::min(memory, 3 * kGiB);
    std::vector<MapEntry> map{
        {0, 0x9fc00, 1}, {0x9fc00, kMiB - 0x9fc00, 2}, {kMiB, low - kMiB, 1}, {0xfffbc000, 0x4000, 2}};
    if (memory > low) map.push_back({4 * kGiB, memory - low, 1});
    return map;
}

void check_map(const LocalMemory& memory, Gpa where, std::size_t count, std::size_t entry_bytes)
{
    std::vector<MapEntry> map;
    for (std::size_t i = 0; i < count; ++i) {
        const auto entry = where + i * entry_bytes;
        map.push_back({memory.at<std::uint64_t>(entry), memory.at<std::uint64_t>(entry + 8),
                       memory.at<std::uint32_t>(entry + 16)});
    }
    BOOST_TEST(map == expected_map(memory->size().value()), boost::test_tools::per_element());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(layouts)

BOOST_AUTO_TEST_CASE(nothing_in_the_memory_map_overlaps)
{
    using namespace layout;
    struct Piece {
        Gpa start;
        std::uint64_t bytes;
    };
    const std::vector<Piece> pieces{{kGdt, 32},
                                    {kPvhStartInfo, kPageBytes},
                                    {kZeroPage, kPageBytes},
                                    {kPageTables, kPageTablesBytes},
                                    {kCommandLine, kCommandLineBytes},
                                    {kLowRamEnd, kAcpi - kLowRamEnd},
                                    {kAcpi, kAcpiBytes},
                                    {kResetVector, kResetVectorBytes},
                                    {kHighRamStart, kHoleStart - kHighRamStart},
                                    {kVirtioWindows, kMaxVirtioDevices * kVirtioWindowBytes},
                                    {kIoApic, kPageBytes},
                                    {kLocalApic, kPageBytes},
                                    {kKvmPages, kKvmPagesBytes},
                                    {kHoleEnd, kGiB}};
    for (std::size_t i = 1; i < pieces.size(); ++i) {
        BOOST_TEST(pieces[i - 1].start.value() + pieces[i - 1].bytes <= pieces[i].start.value());
    }
    BOOST_TEST(virtio_gsi(kMaxVirtioDevices - 1) < kIoApicPins);
    BOOST_TEST(kPowerPort + 1 <= kPmTimerPort);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(bzimage, Loading)

BOOST_AUTO_TEST_CASE(is_loaded_where_it_prefers_and_told_what_it_needs)
{
    initrd = bytes_of_text(std::string(5000, 'i'));
    const auto image = make_bzimage();
    const auto entry = take(load(image));
    BOOST_TEST((entry.mode == EntryState::Mode::kLong));
    BOOST_TEST(entry.instruction == 0x1000200u);
    BOOST_TEST(entry.rsi == layout::kZeroPage.value());
    const auto code = memory.bytes(Gpa{0x1000000}, 0x3000);
    BOOST_TEST(std::ranges::equal(code, std::span{image}.subspan(8 * 512)));

    const auto zero_page = layout::kZeroPage;
    const auto header = memory.bytes(zero_page + 0x1f1, 0x26c - 0x1f1);
    BOOST_TEST((header[0x202 - 0x1f1] == std::byte{'H'}));
    BOOST_TEST(memory.at<std::uint8_t>(zero_page + 0x210) == 0xffu);
    BOOST_TEST(memory.at<std::uint64_t>(zero_page + 0x70) == 0xe0000u);
    BOOST_TEST(memory.text(Gpa{memory.at<std::uint32_t>(zero_page + 0x228)}) == "console=ttyS0");
    const Gpa ramdisk{memory.at<std::uint32_t>(zero_page + 0x218)};
    BOOST_TEST(memory.at<std::uint32_t>(zero_page + 0x21c) == 5000u);
    BOOST_TEST(ramdisk.value() == kSmall - 8192);
    BOOST_TEST((memory.bytes(ramdisk, 5000) == initrd));
    check_map(memory, zero_page + 0x2d0, memory.at<std::uint8_t>(zero_page + 0x1e8), 20);
}

BOOST_AUTO_TEST_CASE(is_given_page_tables_that_map_4_gib_and_a_flat_descriptor_table)
{
    const auto entry = take(load(make_bzimage()));
    const auto next = [&](Gpa table, std::uint64_t index) {
        const auto value = memory.at<std::uint64_t>(table + index * 8);
        BOOST_TEST((value & 3) == 3u);
        return value;
    };
    for (const std::uint64_t address : {0ull, 0x1000000ull, 0xd0000000ull, 0xffe00000ull}) {
        const Gpa second{next(entry.page_tables, address >> 39) & ~0xfffull};
        const Gpa third{next(second, address >> 30) & ~0xfffull};
        BOOST_TEST(next(third, (address >> 21) & 511) == (address | 0x83));
    }
    BOOST_TEST(entry.gdt_limit == 31u);
    BOOST_TEST(memory.at<std::uint64_t>(entry.gdt + entry.code_selector) == 0x00af9b000000ffffu);
    BOOST_TEST(memory.at<std::uint64_t>(entry.gdt + entry.data_selector) == 0x00cf93000000ffffu);
}

BOOST_AUTO_TEST_CASE(moves_down_where_memory_is_small_and_it_may)
{
    Loading small{16 * kMiB};
    BOOST_TEST(take(small.load(make_bzimage())).instruction == 0x200200u);
    const auto fixed = with(make_bzimage(), 0x234, std::uint8_t{0});
    BOOST_TEST((small.refusal(fixed, "the kernel needs 8 MiB in one piece") == ErrorCode::kNoRoom));
}

BOOST_AUTO_TEST_CASE(has_four_setup_sectors_where_it_names_none)
{
    const auto image = make_bzimage(0x1000, 0);
    BOOST_TEST(take(load(image)).instruction == 0x1000200u);
    BOOST_TEST((memory.at<std::byte>(Gpa{0x1000000}) == image[5 * 512]));
}

BOOST_AUTO_TEST_CASE(in_a_large_guest_stays_below_the_hole)
{
    Loading large{5 * kGiB};
    large.initrd = Image(4096, std::byte{1});
    const auto image = with(make_bzimage(), 0x22c, 0xffffffffu);
    BOOST_TEST(take(large.load(image)).instruction == 0x1000200u);
    BOOST_TEST(large.memory.at<std::uint32_t>(layout::kZeroPage + 0x218) == 3 * kGiB - 4096);
    check_map(large.memory, layout::kZeroPage + 0x2d0, 5, 20);
    const auto beyond = with(with(make_bzimage(), 0x234, std::uint8_t{0}), 0x258, std::uint64_t{4 * kGiB});
    BOOST_TEST((large.refusal(beyond, "in one piece") == ErrorCode::kNoRoom));
}

BOOST_AUTO_TEST_CASE(refused_where_it_is_no_kernel)
{
    for (const auto& file : {Image{}, Image(1, std::byte{0x7f}), Image(4096), bytes_of_text("#!/bin/sh\n"),
                             Image(1 << 20, std::byte{0xff}), Image(0x263, std::byte{0xaa})}) {
        BOOST_TEST((refusal(file, "neither a bzImage nor an ELF file") == ErrorCode::kInvalid));
    }
}

BOOST_AUTO_TEST_CASE(refused_where_its_header_lies)
{
    const auto good = make_bzimage();
    refusal(with(good, 0x206, std::uint16_t{0x020b}), "boot protocol older than 2.12");
    refusal(with(good, 0x236, std::uint16_t{0x3e}), "no 64-bit entry point");
    refusal(with(good, 0x1f1, std::uint8_t{0xff}), "cut off");
    refusal(with(good, 0x201, std::uint8_t{0x10}), "setup header of a wrong length");
    refusal(with(good, 0x201, std::uint8_t{0xff}), "setup header of a wrong length");
    refusal(with(good, 0x230, 0u), "alignment that is no power of two");
    refusal(with(good, 0x230, 0x300000u), "alignment that is no power of two");
    refusal(with(good, 0x1f4, 0xffffffffu), "cut off");
    for (const auto wild : {~std::uint64_t{0}, ~std::uint64_t{0} - 0xfff, 4 * kGiB, 3 * kGiB}) {
        BOOST_TEST(take(load(with(good, 0x258, wild))).instruction == 0x200200u);
    }
    refusal(with(good, 0x260, 0xffffffffu), "in one piece");
    BOOST_TEST(take(load(with(good, 0x260, 0u))).instruction == 0x1000200u);
}

BOOST_AUTO_TEST_CASE(refused_wherever_it_is_cut_off)
{
    const auto whole = make_bzimage();
    for (std::size_t size = 0; size < whole.size(); size += size < 0x300 ? 1 : 97) {
        const Image part{whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)};
        const auto entry = load(part);
        BOOST_REQUIRE_MESSAGE(!entry.ok(), "accepted with " << size << " bytes");
        BOOST_REQUIRE((entry.error().code() == ErrorCode::kInvalid));
    }
}

BOOST_AUTO_TEST_CASE(may_carry_a_signature_behind_its_code)
{
    auto image = make_bzimage();
    image.resize(image.size() + 1472, std::byte{0x30});
    BOOST_TEST(load(image).ok());
}

BOOST_AUTO_TEST_CASE(refuses_an_initrd_that_does_not_fit)
{
    initrd = Image(kSmall - 0x1000000 - 0x800000);
    BOOST_TEST(load(make_bzimage()).ok());
    initrd.push_back(std::byte{1});
    BOOST_TEST(
        (refusal(make_bzimage(), "the initial ramdisk (40.0 MiB) does not fit") == ErrorCode::kNoRoom));
    initrd = Image(kSmall + 1);
    BOOST_TEST((refusal(make_bzimage(), "does not fit") == ErrorCode::kNoRoom));
    initrd = Image(4097);
    refusal(with(make_bzimage(), 0x22c, 0u), "does not fit");
    refusal(with(make_bzimage(), 0x22c, 0x1800fffu), "does not fit");
    BOOST_TEST(load(with(make_bzimage(), 0x22c, 0x1801fffu)).ok());
    BOOST_TEST(memory.at<std::uint32_t>(layout::kZeroPage + 0x218) == 0x1800000u);
}

BOOST_AUTO_TEST_CASE(takes_a_command_line_of_its_length_and_no_longer_one)
{
    command_line = std::string(2047, 'c');
    BOOST_TEST(load(make_bzimage()).ok());
    BOOST_TEST(memory.text(layout::kCommandLine) == command_line);
    command_line += 'c';
    refusal(make_bzimage(), "has 2048 characters; this kernel takes 2047");
    command_line = std::string(layout::kCommandLineBytes, 'c');
    refusal(with(make_bzimage(), 0x238, 0xffffffffu), "this kernel takes 65535");
    command_line = std::string{"a\0b", 3};
    refusal(make_bzimage(), "holds a zero byte");
}

BOOST_AUTO_TEST_CASE(of_random_headers_breaks_nothing)
{
    std::mt19937_64 random{1};
    const auto good = make_bzimage(0x800);
    std::size_t loaded = 0;
    for (int round = 0; round < 3000; ++round) {
        auto image = good;
        for (auto edits = 1 + random() % 6; edits > 0; --edits) {
            image[0x1f0 + random() % 0x80] = static_cast<std::byte>(random());
        }
        if (random() % 8 == 0) image.resize(random() % image.size());
        initrd.resize(random() % 3 == 0 ? random() % 100'000 : 0);
        const auto entry = load(image);
        if (!entry) continue;
        ++loaded;
        BOOST_REQUIRE(entry->instruction >= kMiB + 0x200);
        BOOST_REQUIRE(entry->instruction < kSmall);
    }
    BOOST_TEST(loaded > 0u);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(pvh, Loading)

BOOST_AUTO_TEST_CASE(is_loaded_and_told_what_it_needs)
{
    initrd = bytes_of_text("ramdisk");
    const auto entry = take(load(make_elf({{1, 2 * kMiB, bytes_of_text("code"), 0x1000},
                                           {1, 3 * kMiB, bytes_of_text("data"), 0},
                                           {6, ~0ull, {}, ~0ull},
                                           make_note(1, bytes_of_text("GNU!"), {"GNU\0", 4}),
                                           make_entry_note(0x200010)})));
    BOOST_TEST((entry.mode == EntryState::Mode::kProtected));
    BOOST_TEST(entry.instruction == 0x200010u);
    BOOST_TEST(memory.text(Gpa{2 * kMiB}) == "code");
    BOOST_TEST(memory.text(Gpa{3 * kMiB}) == "data");
    const Gpa info{entry.rbx};
    BOOST_TEST(memory.at<std::uint32_t>(info) == 0x336ec578u);
    BOOST_TEST(memory.at<std::uint32_t>(info + 12) == 1u);
    const Gpa module{memory.at<std::uint64_t>(info + 16)};
    BOOST_TEST(memory.text(Gpa{memory.at<std::uint64_t>(module)}) == "ramdisk");
    BOOST_TEST(memory.at<std::uint64_t>(module + 8) == 7u);
    BOOST_TEST(memory.text(Gpa{memory.at<std::uint64_t>(info + 24)}) == "console=ttyS0");
    BOOST_TEST(memory.at<std::uint64_t>(info + 32) == 0xe0000u);
    check_map(memory, Gpa{memory.at<std::uint64_t>(info + 40)}, memory.at<std::uint32_t>(info + 48), 24);
}

BOOST_AUTO_TEST_CASE(entry_may_be_told_in_eight_bytes_or_behind_other_notes)
{
    Image eight;
    poke(eight, 0, std::uint64_t{kMiB});
    const Segment code{1, kMiB, bytes_of_text("code"), 0};
    BOOST_TEST(take(load(make_elf({code, make_note(18, eight)}))).instruction == kMiB);
    auto notes = make_note(18, eight, "Xen");  // another owner: without its terminator
    for (const auto& more :
         {make_note(5, bytes_of_text("odd length"), "someone else"), make_entry_note(kMiB)}) {
        notes.content.insert(notes.content.end(), more.content.begin(), more.content.end());
    }
    BOOST_TEST(take(load(make_elf({code, notes}))).instruction == kMiB);
}

BOOST_AUTO_TEST_CASE(refused_where_its_headers_lie)
{
    const auto good = make_pvh(bytes_of_text("code"));
    refusal(with(good, 4, std::uint8_t{1}), "ELF file for another machine");
    refusal(with(good, 5, std::uint8_t{2}), "ELF file for another machine");
    refusal(with(good, 18, std::uint16_t{183}), "ELF file for another machine");
    refusal(with(good, 54, std::uint16_t{32}), "program headers of a wrong size");
    refusal(with(good, 56, std::uint16_t{129}), "program headers of a wrong size or number");
    refusal(with(good, 56, std::uint16_t{128}), "cut off in its program headers");
    refusal(with(good, 56, std::uint16_t{0}), "without a PVH entry");
    for (const auto wild : {~std::uint64_t{0}, ~std::uint64_t{0} - 60, std::uint64_t{good.size() - 1}}) {
        refusal(with(good, 32, wild), "cut off in its program headers");
    }
}

BOOST_AUTO_TEST_CASE(refused_where_a_segment_leaves_the_file_or_the_memory)
{
    const auto good = make_pvh(bytes_of_text("code"));
    const auto field = [](std::size_t offset) { return kProgramHeadersAt + offset; };
    for (const auto wild : {~std::uint64_t{0}, ~std::uint64_t{0} - 3, std::uint64_t{good.size() - 3}}) {
        refusal(with(good, field(8), wild), "segment cut off");
        refusal(with(good, field(32), wild), "segment cut off");
    }
    refusal(with(good, field(40), std::uint64_t{3}), "segment cut off");
    for (const auto wild : {std::uint64_t{0}, kMiB - 1, kSmall, kSmall - 0xffff, 3 * kGiB, 4 * kGiB,
                            ~std::uint64_t{0}, ~std::uint64_t{0} - 0xffff}) {
        BOOST_TEST((refusal(with(good, field(24), wild), "does not fit into 64 MiB") == ErrorCode::kNoRoom));
    }
    for (const auto wild : {~std::uint64_t{0}, kSmall - kMiB + 1, ~std::uint64_t{0} - kMiB + 1}) {
        refusal(with(good, field(40), wild), "does not fit into 64 MiB");
    }
    Loading large{5 * kGiB};
    BOOST_TEST((large.refusal(with(good, field(24), std::uint64_t{4 * kGiB}), "does not fit") ==
                ErrorCode::kNoRoom));
}

BOOST_AUTO_TEST_CASE(refused_where_segments_overlap)
{
    const auto note = make_entry_note(kMiB);
    const auto first = Segment{1, kMiB, bytes_of_text("first"), 0x2000};
    refusal(make_elf({first, {1, kMiB + 0x1fff, bytes_of_text("second"), 0}, note}), "segments overlap");
    refusal(make_elf({{1, kMiB + 0x1fff, bytes_of_text("second"), 0}, first, note}), "segments overlap");
    refusal(make_elf({first, first, note}), "segments overlap");
    BOOST_TEST(load(make_elf({first, {1, kMiB + 0x2000, bytes_of_text("second"), 0}, note})).ok());
}

BOOST_AUTO_TEST_CASE(refused_without_an_entry_inside_of_it)
{
    const Segment code{1, kMiB, bytes_of_text("code"), 0x1000};
    refusal(make_elf({code}), "without a PVH entry");
    refusal(make_elf({code, make_note(17, bytes_of_text("1234"))}), "without a PVH entry");
    refusal(make_elf({code, make_note(18, bytes_of_text("123"))}), "without a PVH entry");
    refusal(make_elf({code, make_note(18, {})}), "without a PVH entry");
    refusal(make_elf({make_entry_note(kMiB)}), "outside of the kernel");
    refusal(make_elf({code, make_entry_note(kMiB - 1)}), "outside of the kernel");
    refusal(make_elf({code, make_entry_note(kMiB + 0x1000)}), "outside of the kernel");
    refusal(make_elf({code, {1, 4 * kMiB, code.content, 0}, make_entry_note(2 * kMiB)}),
            "outside of the kernel");
    Image beyond;
    poke(beyond, 0, (std::uint64_t{1} << 32) + kMiB);
    refusal(make_elf({code, make_note(18, beyond)}), "outside of the kernel");
}

BOOST_AUTO_TEST_CASE(refused_with_notes_that_lie)
{
    const Segment code{1, kMiB, bytes_of_text("code"), 0x1000};
    const auto kernel = make_elf({code, make_entry_note(kMiB)});
    const auto note = kernel.size() - make_entry_note(kMiB).content.size();
    const auto header = kProgramHeadersAt + kProgramHeaderBytes;
    refusal(with(kernel, header + 32, std::uint64_t{21}), "notes cut off");
    refusal(with(kernel, header + 8, ~std::uint64_t{0}), "notes cut off");
    for (const auto wild : {0xffffffffu, 0xfffffffcu, 0x80000000u, 17u}) {
        refusal(with(kernel, note, wild), "without a PVH entry");
        refusal(with(kernel, note + 4, wild), "without a PVH entry");
    }
    // A note of no bytes at all, as often as there is room.
    refusal(make_elf({code, {4, 0, Image(12 * 5000), 0}}), "without a PVH entry");
}

BOOST_AUTO_TEST_CASE(refused_wherever_it_is_cut_off)
{
    const auto whole = make_pvh(bytes_of_text("some code"));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const Image part{whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)};
        BOOST_REQUIRE(!load(part).ok());
    }
}

BOOST_AUTO_TEST_CASE(refuses_an_initrd_or_a_command_line_that_does_not_fit)
{
    const auto kernel = make_elf({{1, kMiB, bytes_of_text("code"), 32 * kMiB}, make_entry_note(kMiB)});
    initrd = Image(kSmall - 33 * kMiB);
    BOOST_TEST(load(kernel).ok());
    initrd.push_back(std::byte{1});
    BOOST_TEST((refusal(kernel, "initial ramdisk") == ErrorCode::kNoRoom));
    initrd.clear();
    command_line = std::string(2048, 'c');
    refusal(kernel, "this kernel takes 2047");
}

BOOST_AUTO_TEST_CASE(of_random_bytes_breaks_nothing)
{
    std::mt19937_64 random{2};
    const auto good = make_elf({{1, kMiB, Image(300, std::byte{0x90}), 0x4000},
                                {1, 4 * kMiB, Image(100, std::byte{0x90}), 0},
                                make_note(3, bytes_of_text("other"), "owner"),
                                make_entry_note(kMiB)});
    std::size_t loaded = 0;
    for (int round = 0; round < 5000; ++round) {
        auto image = good;
        for (auto edits = 1 + random() % 5; edits > 0; --edits) {
            const auto at = random() % (image.size() - 8);
            if (random() % 2 == 0) {
                image[at] = static_cast<std::byte>(random());
            } else {
                poke(image, at,
                     random() % 3 == 0 ? ~std::uint64_t{0} - random() % 64 : random() >> (random() % 64));
            }
        }
        if (random() % 8 == 0) image.resize(4 + random() % image.size());
        const auto entry = load(image);
        if (!entry) continue;
        ++loaded;
        BOOST_REQUIRE(entry->instruction >= kMiB);
    }
    BOOST_TEST(loaded > 0u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
