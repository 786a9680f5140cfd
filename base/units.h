#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace splitvisor {

/// An integer that means one thing. Different tags do not mix, and nothing converts by itself.
template <typename Tag, typename Representation = std::uint64_t>
class Tagged {
  public:
    using representation = Representation;

    constexpr Tagged() = default;
    constexpr explicit Tagged(Representation value) : value_{value} {}

    [[nodiscard]] constexpr Representation value() const { return value_; }
    constexpr auto operator<=>(const Tagged&) const = default;

  private:
    Representation value_{};
};

using VcpuId = Tagged<struct VcpuIdTag, std::uint32_t>;
using RegionId = Tagged<struct RegionIdTag>;    ///< names a vRegion across the whole cluster
using VolumeId = Tagged<struct VolumeIdTag>;    ///< names a volume across the whole cluster
using Epoch = Tagged<struct EpochTag>;          ///< lease epoch of a vNode; components refuse an older one
using Version = Tagged<struct VersionTag>;      ///< orders the write-backs of one page; larger is newer
using Sector = Tagged<struct SectorTag>;        ///< 512-byte unit of a virtio disk

inline constexpr std::uint64_t kPageShift = 12;
inline constexpr std::size_t kPageBytes = std::size_t{1} << kPageShift;
inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

/// A number of bytes.
class ByteCount : public Tagged<struct ByteCountTag> {
  public:
    using Tagged::Tagged;
    constexpr ByteCount operator+(ByteCount other) const { return ByteCount{value() + other.value()}; }
    constexpr ByteCount operator-(ByteCount other) const { return ByteCount{value() - other.value()}; }
};

/// A number of 4 KiB pages.
class PageCount : public Tagged<struct PageCountTag> {
  public:
    using Tagged::Tagged;
    constexpr PageCount operator+(PageCount other) const { return PageCount{value() + other.value()}; }
    constexpr PageCount operator-(PageCount other) const { return PageCount{value() - other.value()}; }
    [[nodiscard]] constexpr ByteCount bytes() const { return ByteCount{value() << kPageShift}; }
    static constexpr PageCount of(ByteCount bytes) { return PageCount{(bytes.value() + kPageBytes - 1) >> kPageShift}; }
};

/// A guest-physical address.
class Gpa : public Tagged<struct GpaTag> {
  public:
    using Tagged::Tagged;
    constexpr Gpa operator+(std::uint64_t bytes) const { return Gpa{value() + bytes}; }
    constexpr std::uint64_t operator-(Gpa other) const { return value() - other.value(); }
};

/// A line's number within a vNode's memory: page 0 is the first page of RAM, holes are not counted.
/// Dense, so that per-page tables are plain arrays; vmm/ maps Gpa to Line.
class Line : public Tagged<struct LineTag, std::uint32_t> {
  public:
    using Tagged::Tagged;
    constexpr Line operator+(std::uint32_t lines) const { return Line{value() + lines}; }
    [[nodiscard]] constexpr std::uint64_t byte_offset() const { return std::uint64_t{value()} << kPageShift; }
};

}  // namespace splitvisor

template <typename Tag, typename Representation>
struct std::hash<splitvisor::Tagged<Tag, Representation>> {
    std::size_t operator()(splitvisor::Tagged<Tag, Representation> tagged) const
    {
        return std::hash<Representation>{}(tagged.value());
    }
};
