#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vstore/protocol.h"

namespace splitvisor::vstore {

/// What the store keeps about a volume beside its data.
struct VolumeRecord {
    VolumeId id{};
    ByteCount size{};
    Epoch epoch{};
    Capability capability{};
    std::string image;  ///< empty, or the image the volume was made from

    bool operator==(const VolumeRecord&) const = default;
};

inline constexpr std::size_t kMaxImageName = 100;

/// True for 1 to kMaxImageName of [A-Za-z0-9._-] that do not start with '.' or '-'.
[[nodiscard]] bool is_valid_image_name(std::string_view name);

/// A fixed-size encoding with a checksum.
[[nodiscard]] std::vector<std::byte> encode(const VolumeRecord& record);
/// kCorrupt where the bytes are not what encode() made.
Result<VolumeRecord> decode_record(std::span<const std::byte> bytes);

}  // namespace splitvisor::vstore
