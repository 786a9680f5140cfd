#pragma once

#include <concepts>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace splitvisor::vmm {

/// Where guest RAM lies: [0, 3 GiB) and, for larger guests, [4 GiB, ...). Lines number it without the hole.
inline constexpr Gpa kHoleStart{3 * kGiB};
inline constexpr Gpa kHoleEnd{4 * kGiB};

struct RamRange {
    Gpa start;
    ByteCount size;
    std::uint64_t offset = 0;  ///< of its first byte in the host mapping; Line = offset / 4 KiB
};

[[nodiscard]] std::vector<RamRange> ram_layout(ByteCount memory);

/// Guest RAM as the VMM's own code may see it: every access is by Gpa and checked, and no pointer gets out but through
/// host_range, for system calls that read or write guest buffers. A page that is absent (remote) is brought in by the
/// fault engine while the access waits: the caller needs no care, but must not hold a lock a fault handler takes.
/// Thread-safe; the content is as racy as RAM is.
class GuestMemory {
  public:
    /// `host` is the mapping of all RAM, ordered by Line. Not owned.
    GuestMemory(std::span<std::byte> host, ByteCount memory);

    [[nodiscard]] const std::vector<RamRange>& ranges() const { return ranges_; }
    [[nodiscard]] ByteCount size() const { return ByteCount{host_.size()}; }

    /// The host bytes of [gpa, gpa + length); nothing where any of it is not RAM or it straddles two ranges.
    [[nodiscard]] std::optional<std::span<std::byte>> host_range(Gpa gpa, std::uint64_t length) const;
    [[nodiscard]] std::optional<Line> line_of(Gpa gpa) const;

    [[nodiscard]] bool read(Gpa gpa, std::span<std::byte> into) const;
    [[nodiscard]] bool write(Gpa gpa, std::span<const std::byte> from) const;

    template <typename T>
    [[nodiscard]] std::optional<T> read(Gpa gpa) const
    {
        T value;
        if (!read(gpa, std::as_writable_bytes(std::span{&value, 1}))) return std::nullopt;
        return value;
    }
    /// A span of a fixed size is written as what it shows, never as the pointer it is.
    template <typename T>
        requires(!std::convertible_to<const T&, std::span<const std::byte>>)
    [[nodiscard]] bool write(Gpa gpa, const T& value) const
    {
        return write(gpa, bytes_of(value));
    }

  private:
    std::span<std::byte> host_;
    std::vector<RamRange> ranges_;
};

}  // namespace splitvisor::vmm
