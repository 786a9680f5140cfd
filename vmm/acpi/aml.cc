#include "vmm/acpi/aml.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/checked.h"

namespace splitvisor::vmm::acpi {
namespace {

// Opcodes (ACPI 6.4, section 20.3); the extended ones follow the prefix 0x5b.
constexpr std::uint8_t kZero = 0x00;
constexpr std::uint8_t kOne = 0x01;
constexpr std::uint8_t kName = 0x08;
constexpr std::uint8_t kBytePrefix = 0x0a;
constexpr std::uint8_t kWordPrefix = 0x0b;
constexpr std::uint8_t kDwordPrefix = 0x0c;
constexpr std::uint8_t kStringPrefix = 0x0d;
constexpr std::uint8_t kQwordPrefix = 0x0e;
constexpr std::uint8_t kScope = 0x10;
constexpr std::uint8_t kBuffer = 0x11;
constexpr std::uint8_t kPackage = 0x12;
constexpr std::uint8_t kMethod = 0x14;
constexpr std::uint8_t kDualName = 0x2e;
constexpr std::uint8_t kMultiName = 0x2f;
constexpr std::uint8_t kRoot = 0x5c;
constexpr std::uint8_t kExtended = 0x5b;
constexpr std::uint8_t kDevice = 0x82;
constexpr std::uint8_t kFirstArgument = 0x68;
constexpr std::uint8_t kNotify = 0x86;
constexpr std::uint8_t kLogicalEqual = 0x93;
constexpr std::uint8_t kIf = 0xa0;

Bytes raw(std::initializer_list<std::uint8_t> values)
{
    Bytes bytes;
    for (const auto value : values) bytes.push_back(std::byte{value});
    return bytes;
}

template <typename T>
Bytes little_endian(T value)
{
    const auto bytes = bytes_of(value);
    return {bytes.begin(), bytes.end()};
}

/// A package length counts itself (section 20.2.4): 6 bits in one byte, or 4 bits and up to three further bytes.
Bytes package_length(std::size_t body_bytes)
{
    if (body_bytes + 1 < 64) return raw({static_cast<std::uint8_t>(body_bytes + 1)});
    std::size_t extra = 1;
    while (body_bytes + 1 + extra >= (std::size_t{1} << (4 + 8 * extra))) ++extra;
    SPLITVISOR_CHECK(extra <= 3);
    const auto length = body_bytes + 1 + extra;
    Bytes bytes = raw({static_cast<std::uint8_t>((extra << 6) | (length & 0xf))});
    for (std::size_t i = 0; i < extra; ++i) bytes.push_back(static_cast<std::byte>((length >> (4 + 8 * i)) & 0xff));
    return bytes;
}

Bytes sized(const Bytes& opcode, const Bytes& body) { return concat({opcode, package_length(body.size()), body}); }

Bytes segment(std::string_view text)
{
    SPLITVISOR_CHECK(!text.empty() && text.size() <= 4);
    SPLITVISOR_CHECK(text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == std::string_view::npos);
    Bytes bytes(4, std::byte{'_'});
    std::ranges::transform(text, bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
    return bytes;
}

}  // namespace

Bytes concat(std::span<const Bytes> terms)
{
    Bytes all;
    for (const auto& term : terms) all.insert(all.end(), term.begin(), term.end());
    return all;
}

Bytes concat(std::initializer_list<Bytes> terms) { return concat(std::span{terms.begin(), terms.size()}); }

Bytes path(std::string_view text)
{
    Bytes bytes;
    if (text.starts_with('\\')) {
        bytes = raw({kRoot});
        text.remove_prefix(1);
    }
    Bytes segments;
    std::uint8_t count = 0;
    while (!text.empty()) {
        const auto end = std::min(text.find('.'), text.size());
        segments = concat({segments, segment(text.substr(0, end))});
        text.remove_prefix(std::min(end + 1, text.size()));
        ++count;
    }
    SPLITVISOR_CHECK(count > 0);
    if (count == 2) bytes.push_back(std::byte{kDualName});
    if (count > 2) bytes = concat({bytes, raw({kMultiName, count})});
    return concat({bytes, segments});
}

Bytes integer(std::uint64_t value)
{
    if (value == 0) return raw({kZero});
    if (value == 1) return raw({kOne});
    if (value <= 0xff) return concat({raw({kBytePrefix}), little_endian(static_cast<std::uint8_t>(value))});
    if (value <= 0xffff) return concat({raw({kWordPrefix}), little_endian(static_cast<std::uint16_t>(value))});
    if (value <= 0xffff'ffff) return concat({raw({kDwordPrefix}), little_endian(static_cast<std::uint32_t>(value))});
    return concat({raw({kQwordPrefix}), little_endian(value)});
}

Bytes string(std::string_view text)
{
    auto bytes = raw({kStringPrefix});
    for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
    bytes.push_back(std::byte{0});
    return bytes;
}

Bytes eisa_id(std::string_view id)
{
    // Section 19.3.4: three letters of five bits, then four hexadecimal digits, the whole big-endian.
    SPLITVISOR_CHECK(id.size() == 7);
    std::uint32_t value = 0;
    for (const char c : id.substr(0, 3)) value = (value << 5) | (static_cast<std::uint32_t>(c - '@') & 0x1f);
    for (const char c : id.substr(3)) {
        const auto digit = c <= '9' ? c - '0' : c - 'A' + 10;
        value = (value << 4) | static_cast<std::uint32_t>(digit);
    }
    return concat({raw({kDwordPrefix}), little_endian(__builtin_bswap32(value))});
}

Bytes name(std::string_view object, const Bytes& value) { return concat({raw({kName}), path(object), value}); }

Bytes package(std::initializer_list<Bytes> elements)
{
    const auto count = raw({narrow<std::uint8_t>(elements.size())});
    return sized(raw({kPackage}), concat({count, concat(elements)}));
}

Bytes scope(std::string_view where, const Bytes& body) { return sized(raw({kScope}), concat({path(where), body})); }

Bytes device(std::string_view object, const Bytes& body)
{
    return sized(raw({kExtended, kDevice}), concat({path(object), body}));
}

Bytes method(std::string_view object, std::uint8_t arguments, const Bytes& body)
{
    constexpr std::uint8_t kSerialized = 1u << 3;
    SPLITVISOR_CHECK(arguments <= 7);
    const auto flags = raw({static_cast<std::uint8_t>(arguments | kSerialized)});
    return sized(raw({kMethod}), concat({path(object), flags, body}));
}

Bytes argument(std::uint8_t index)
{
    SPLITVISOR_CHECK(index <= 6);
    return raw({static_cast<std::uint8_t>(kFirstArgument + index)});
}

Bytes if_equal(const Bytes& left, const Bytes& right, const Bytes& body)
{
    return sized(raw({kIf}), concat({raw({kLogicalEqual}), left, right, body}));
}

Bytes notify(std::string_view object, std::uint8_t value)
{
    return concat({raw({kNotify}), path(object), integer(value)});
}

Bytes resources(std::initializer_list<Bytes> descriptors)
{
    // End tag, with a checksum of zero: "treat as correct" (section 6.4.2.9).
    const auto content = concat({concat(descriptors), raw({0x79, 0x00})});
    return sized(raw({kBuffer}), concat({integer(content.size()), content}));
}

Bytes io_ports(std::uint16_t first, std::uint8_t count)
{
    // Small item 8, length 7: decodes 16 bits, minimum = maximum, alignment 1 (section 6.4.2.5).
    return concat({raw({0x47, 0x01}), little_endian(first), little_endian(first), raw({0x01, count})});
}

Bytes memory_window(std::uint32_t start, std::uint32_t bytes)
{
    // Large item 6: 32-bit fixed memory range, writable (section 6.4.3.4).
    return concat({raw({0x86, 0x09, 0x00, 0x01}), little_endian(start), little_endian(bytes)});
}

Bytes edge_interrupt(std::uint32_t gsi)
{
    // Large item 9: extended interrupt; flags: consumer, edge (section 6.4.3.6).
    return concat({raw({0x89, 0x06, 0x00, 0x03, 0x01}), little_endian(gsi)});
}

}  // namespace splitvisor::vmm::acpi
