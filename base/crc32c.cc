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

constexpr auto kTable = make_table();

std::uint32_t with_table(std::span<const std::byte> bytes, std::uint32_t crc)
{
    for (const auto byte : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(byte)) & 0xff];
    return crc;
}

/// One instruction takes three cycles, but another can begin each cycle: long ranges are cut into blocks of three lanes, whose sums
/// are computed side by side and then joined.
constexpr std::size_t kLanes = 3;
constexpr std::size_t kLaneBytes = 1360;
constexpr std::size_t kBlockBytes = kLanes * kLaneBytes;
static_assert(kLaneBytes % 8 == 0);

/// What the sum becomes when kLaneBytes zeros follow, by each byte of it: the sum is linear (all arithmetic is modulo 2).
using ShiftTable = std::array<std::array<std::uint32_t, 256>, 4>;

constexpr ShiftTable make_shift_table()
{
    std::array<std::uint32_t, 32> columns{};
    for (std::size_t bit = 0; bit < columns.size(); ++bit) {
        std::uint32_t crc = 1u << bit;
        for (std::size_t i = 0; i < kLaneBytes; ++i) crc = (crc >> 8) ^ kTable[crc & 0xff];
        columns[bit] = crc;
    }
    ShiftTable shift{};
    for (std::size_t byte = 0; byte < shift.size(); ++byte) {
        for (std::uint32_t value = 0; value < 256; ++value) {
            for (std::size_t bit = 0; bit < 8; ++bit) {
                if ((value >> bit & 1) != 0) shift[byte][value] ^= columns[8 * byte + bit];
            }
        }
    }
    return shift;
}

constexpr ShiftTable kShift = make_shift_table();

std::uint32_t after_lane(std::uint32_t crc)
{
    return kShift[0][crc & 0xff] ^ kShift[1][crc >> 8 & 0xff] ^ kShift[2][crc >> 16 & 0xff] ^ kShift[3][crc >> 24];
}

std::uint64_t word_at(const std::byte* from)
{
    std::uint64_t word = 0;
    std::memcpy(&word, from, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) std::uint32_t block_with_sse42(const std::byte* block, std::uint32_t crc)
{
    std::uint64_t first = crc;
    std::uint64_t second = 0;
    std::uint64_t third = 0;
    for (std::size_t offset = 0; offset < kLaneBytes; offset += 8) {
        first = _mm_crc32_u64(first, word_at(block + offset));
        second = _mm_crc32_u64(second, word_at(block + kLaneBytes + offset));
        third = _mm_crc32_u64(third, word_at(block + 2 * kLaneBytes + offset));
    }
    const auto two = after_lane(static_cast<std::uint32_t>(first)) ^ static_cast<std::uint32_t>(second);
    return after_lane(two) ^ static_cast<std::uint32_t>(third);
}

__attribute__((target("sse4.2"))) std::uint32_t with_sse42(std::span<const std::byte> bytes, std::uint32_t crc)
{
    for (; bytes.size() >= kBlockBytes; bytes = bytes.subspan(kBlockBytes)) crc = block_with_sse42(bytes.data(), crc);
    std::uint64_t wide = crc;
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) wide = _mm_crc32_u64(wide, word_at(bytes.data()));
    crc = static_cast<std::uint32_t>(wide);
    for (const auto byte : bytes) crc = _mm_crc32_u8(crc, static_cast<std::uint8_t>(byte));
    return crc;
}

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed)
{
    static const bool has_sse42 = __builtin_cpu_supports("sse4.2") != 0;
    return ~(has_sse42 ? with_sse42(bytes, ~seed) : with_table(bytes, ~seed));
}

}  // namespace splitvisor
