#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace splitvisor {

/// CRC-32C (Castagnoli, reflected, initial value and final XOR of all ones: RFC 3720 B.4). Pass the last result as
/// `seed` to go on with further bytes.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0);

}  // namespace splitvisor
