#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"

namespace splitvisor::vmm::test {

using Image = std::vector<std::byte>;

inline Image bytes_of_text(std::string_view text)
{
    const auto bytes = std::as_bytes(std::span{text});
    return {bytes.begin(), bytes.end()};
}

template <typename T>
void poke(Image& image, std::size_t offset, T value)
{
    if (image.size() < offset + sizeof value) image.resize(offset + sizeof value);
    store(std::span<std::byte>{image}, offset, value);
}

/// A bzImage as Linux 6.x makes it (Documentation/arch/x86/boot.rst), with a recognisable payload for code.
inline Image make_bzimage(std::size_t code_bytes = 0x3000, std::uint8_t setup_sectors = 7)
{
    const auto code_at = (std::size_t{setup_sectors == 0 ? std::uint8_t{4} : setup_sectors} + 1) * 512;
    Image image(code_at + code_bytes);
    for (std::size_t i = 0; i < code_bytes; ++i) image[code_at + i] = static_cast<std::byte>(i * 7 + 1);
    poke(image, 0x1f1, setup_sectors);
    poke(image, 0x1f4, static_cast<std::uint32_t>(code_bytes / 16));
    poke(image, 0x1fe, std::uint16_t{0xaa55});
    poke(image, 0x200,
         std::uint16_t{0x6aeb});  // jump over the header, whose length it so tells: ends at 0x26c
    poke(image, 0x202, std::uint32_t{0x53726448});
    poke(image, 0x206, std::uint16_t{0x020f});
    poke(image, 0x211, std::uint8_t{1});
    poke(image, 0x22c, std::uint32_t{0x7fffffff});
    poke(image, 0x230, std::uint32_t{0x200000});
    poke(image, 0x234, std::uint8_t{1});
    poke(image, 0x236, std::uint16_t{0x3f});
    poke(image, 0x238, std::uint32_t{2047});
    poke(image, 0x258, std::uint64_t{0x1000000});
    poke(image, 0x260, std::uint32_t{0x800000});
    return image;
}

struct Segment {
    std::uint32_t type = 1;
    std::uint64_t address = kMiB;
    Image content;
    std::uint64_t memory_bytes = 0;  ///< 0: as many as the content has
};

inline constexpr std::size_t kProgramHeadersAt = 64;
inline constexpr std::size_t kProgramHeaderBytes = 56;

/// A note segment of the given owner.
inline Segment make_note(std::uint32_t type, const Image& descriptor, std::string_view owner = {"Xen\0", 4})
{
    Image note;
    poke(note, 0, static_cast<std::uint32_t>(owner.size()));
    poke(note, 4, static_cast<std::uint32_t>(descriptor.size()));
    poke(note, 8, type);
    const auto append_padded = [&](const Image& part) {
        note.insert(note.end(), part.begin(), part.end());
        note.resize((note.size() + 3) / 4 * 4);
    };
    append_padded(bytes_of_text(owner));
    append_padded(descriptor);
    return {4, 0, note, 0};
}
inline Segment make_entry_note(std::uint32_t entry)
{
    Image descriptor;
    poke(descriptor, 0, entry);
    return make_note(18, descriptor);
}

/// An ELF executable for x86-64: header, program headers, contents one behind the other.
inline Image make_elf(const std::vector<Segment>& segments)
{
    Image image(kProgramHeadersAt + kProgramHeaderBytes * segments.size());
    poke(image, 0, std::uint32_t{0x464c457f});
    poke(image, 4, std::uint16_t{0x0102});
    poke(image, 16, std::uint16_t{2});
    poke(image, 18, std::uint16_t{62});
    poke(image, 20, std::uint32_t{1});
    poke(image, 24, std::uint64_t{0xffffffff81000000});
    poke(image, 32, std::uint64_t{kProgramHeadersAt});
    poke(image, 52, std::uint16_t{64});
    poke(image, 54, std::uint16_t{kProgramHeaderBytes});
    poke(image, 56, static_cast<std::uint16_t>(segments.size()));
    for (std::size_t i = 0; i < segments.size(); ++i) {
        const auto& segment = segments[i];
        const auto header = kProgramHeadersAt + i * kProgramHeaderBytes;
        poke(image, header, segment.type);
        poke(image, header + 8, std::uint64_t{image.size()});
        poke(image, header + 24, segment.address);
        poke(image, header + 32, std::uint64_t{segment.content.size()});
        poke(image, header + 40, std::max<std::uint64_t>(segment.memory_bytes, segment.content.size()));
        image.insert(image.end(), segment.content.begin(), segment.content.end());
    }
    return image;
}

/// A PVH kernel whose code is loaded and entered at 1 MiB.
inline Image make_pvh(const Image& code)
{
    return make_elf({{1, kMiB, code, 0x10000}, make_entry_note(static_cast<std::uint32_t>(kMiB))});
}

}  // namespace splitvisor::vmm::test
