#include "vstore/volume_record.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"

namespace splitvisor::vstore {

namespace {

struct Encoded {
    std::array<char, 8> magic;
    std::uint64_t id;
    std::uint64_t size_bytes;
    std::uint64_t epoch;
    Capability capability;
    std::array<char, 128> image;  ///< filled up with zeros
    std::uint32_t reserved;
    std::uint32_t crc;  ///< crc32c of all the above
};
static_assert(sizeof(Encoded) == 184);
static_assert(kMaxImageName < sizeof(Encoded::image));

/// The last digit is the version of the encoding.
constexpr std::array<char, 8> kMagic{'S', 'V', 'V', 'O', 'L', 'U', 'M', '1'};

std::uint32_t crc_of(const Encoded& encoded)
{
    return crc32c(bytes_of(encoded).first(offsetof(Encoded, crc)));
}

bool is_image_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

}  // namespace

bool is_valid_image_name(std::string_view name)
{
    if (name.empty() || name.size() > kMaxImageName || name.front() == '.' || name.front() == '-')
        return false;
    return std::ranges::all_of(name, is_image_character);
}

std::vector<std::byte> encode(const VolumeRecord& record)
{
    SPLITVISOR_CHECK(record.image.size() <= kMaxImageName);
    Encoded encoded{};
    encoded.magic = kMagic;
    encoded.id = record.id.value();
    encoded.size_bytes = record.size.value();
    encoded.epoch = record.epoch.value();
    encoded.capability = record.capability;
    std::ranges::copy(record.image, encoded.image.begin());
    encoded.crc = crc_of(encoded);
    const auto bytes = bytes_of(encoded);
    return {bytes.begin(), bytes.end()};
}

Result<VolumeRecord> decode_record(std::span<const std::byte> bytes)
{
    if (bytes.size() != sizeof(Encoded)) return Error{ErrorCode::kCorrupt, "volume record: wrong length"};
    const auto encoded = load<Encoded>(bytes);
    if (encoded.magic != kMagic) return Error{ErrorCode::kCorrupt, "volume record: unknown format"};
    if (encoded.crc != crc_of(encoded)) return Error{ErrorCode::kCorrupt, "volume record: wrong checksum"};
    const auto end = std::ranges::find(encoded.image, '\0');
    return VolumeRecord{.id = VolumeId{encoded.id},
                        .size = ByteCount{encoded.size_bytes},
                        .epoch = Epoch{encoded.epoch},
                        .capability = encoded.capability,
                        .image = std::string{encoded.image.begin(), end}};
}

}  // namespace splitvisor::vstore
