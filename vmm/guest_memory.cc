#include "vmm/guest_memory.h"

#include <algorithm>
#include <cstring>

namespace splitvisor::vmm {

std::vector<RamRange> ram_layout(ByteCount memory)
{
    const auto low = std::min(memory.value(), kHoleStart.value());
    std::vector<RamRange> ranges{{Gpa{0}, ByteCount{low}, 0}};
    if (memory.value() > low) ranges.push_back({kHoleEnd, ByteCount{memory.value() - low}, low});
    return ranges;
}

GuestMemory::GuestMemory(std::span<std::byte> host, ByteCount memory) : host_{host}, ranges_{ram_layout(memory)} {}

std::optional<std::span<std::byte>> GuestMemory::host_range(Gpa gpa, std::uint64_t length) const
{
    for (const auto& range : ranges_) {
        if (gpa < range.start) continue;
        const auto within = gpa - range.start;
        if (within > range.size.value() || length > range.size.value() - within) continue;
        return host_.subspan(range.offset + within, length);
    }
    return std::nullopt;
}

std::optional<Line> GuestMemory::line_of(Gpa gpa) const
{
    const auto host = host_range(gpa, 1);
    if (!host) return std::nullopt;
    return Line{static_cast<std::uint32_t>(static_cast<std::uint64_t>(host->data() - host_.data()) >> kPageShift)};
}

bool GuestMemory::read(Gpa gpa, std::span<std::byte> into) const
{
    const auto host = host_range(gpa, into.size());
    if (!host) return false;
    std::memcpy(into.data(), host->data(), into.size());
    return true;
}

bool GuestMemory::write(Gpa gpa, std::span<const std::byte> from) const
{
    const auto host = host_range(gpa, from.size());
    if (!host) return false;
    std::memcpy(host->data(), from.data(), from.size());
    return true;
}

}  // namespace splitvisor::vmm
