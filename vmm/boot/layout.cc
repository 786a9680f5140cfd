#include "vmm/boot/layout.h"

namespace splitvisor::vmm::layout {

Gpa low_ram_end(ByteCount memory)
{
    const auto low = ram_layout(memory).front();
    return low.start + low.size.value();
}

std::vector<MapEntry> firmware_map(ByteCount memory)
{
    using Type = MapEntry::Type;
    std::vector<MapEntry> map{
        {Gpa{0}, ByteCount{kLowRamEnd.value()}, Type::kRam},
        {kLowRamEnd, ByteCount{kHighRamStart - kLowRamEnd}, Type::kReserved},
    };
    const auto ranges = ram_layout(memory);
    if (const auto end = low_ram_end(memory); end > kHighRamStart) {
        map.push_back({kHighRamStart, ByteCount{end - kHighRamStart}, Type::kRam});
    }
    map.push_back({kKvmPages, ByteCount{kKvmPagesBytes}, Type::kReserved});
    for (std::size_t i = 1; i < ranges.size(); ++i) map.push_back({ranges[i].start, ranges[i].size, Type::kRam});
    return map;
}

}  // namespace splitvisor::vmm::layout
