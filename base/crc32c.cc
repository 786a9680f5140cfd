#include "base/crc32c.h"

#include <nmmintrin.h>

#include <array>
#include <cstring>

namespace splitvisor {

namespace {

constexpr std::array<std::uint32_t, 256> make_table()
{
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t crc = i;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
        table[i] = crc;
    }
    return table;
}

std::uint32_t with_table(std::span<const std::byte> bytes, std::uint32_t crc)
{
    static constexpr auto kTable = make_table();
    for (const auto byte : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(byte)) & 0xff];
    return crc;
}

__attribute__((target("sse4.2"))) std::uint32_t with_sse42(std::span<const std::byte> bytes, std::uint32_t crc)
{
    std::uint64_t wide = crc;
    std::size_t offset = 0;
    for (; offset + 8 <= bytes.size(); offset += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + offset, sizeof word);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = static_cast<std::uint32_t>(wide);
    for (; offset < bytes.size(); ++offset) crc = _mm_crc32_u8(crc, static_cast<std::uint8_t>(bytes[offset]));
    return crc;
}

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed)
{
    static const bool has_sse42 = __builtin_cpu_supports("sse4.2") != 0;
    return ~(has_sse42 ? with_sse42(bytes, ~seed) : with_table(bytes, ~seed));
}

}  // namespace splitvisor
