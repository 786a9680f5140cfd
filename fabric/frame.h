#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "fabric/connection.h"

namespace splitvisor::fabric {

/// What precedes each message on the wire; little-endian. The head follows at once, then the data.
struct FrameHeader {
    std::uint32_t magic;
    std::uint16_t kind;
    std::uint16_t status;
    std::uint64_t request_id;
    std::uint32_t head_bytes;
    std::uint32_t data_bytes;
    std::uint32_t data_crc;  ///< crc32c of the data; 0 where there is none
    std::uint32_t head_crc;  ///< crc32c of all the above and the head
};
static_assert(sizeof(FrameHeader) == 32);
static_assert(offsetof(FrameHeader, request_id) == 8);
static_assert(offsetof(FrameHeader, head_crc) == 28);
static_assert(std::is_trivially_copyable_v<FrameHeader>);

/// "SVF1": the last digit is the version of the frame format.
inline constexpr std::uint32_t kFrameMagic = 0x31465653;

/// The value of head_crc for a header (its head_crc is not looked at) and a head.
[[nodiscard]] inline std::uint32_t head_crc_of(const FrameHeader& header, std::span<const std::byte> head)
{
    return crc32c(head, crc32c(bytes_of(header).first(offsetof(FrameHeader, head_crc))));
}

}  // namespace splitvisor::fabric
