#include "vmm/devices/pm_timer.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/clock.h"

namespace splitvisor::vmm {

std::uint32_t PmTimer::ticks(std::uint64_t time_ns)
{
    constexpr std::uint64_t kHertz = 3'579'545;
    constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
    const auto seconds = time_ns / kNsPerSecond;
    const auto rest = time_ns % kNsPerSecond;
    return static_cast<std::uint32_t>(seconds * kHertz + rest * kHertz / kNsPerSecond);
}

void PmTimer::read(std::uint64_t offset, std::span<std::byte> into)
{
    const auto value = ticks(now_ns());
    std::array<std::byte, 8> bytes{};
    store(std::span<std::byte>{bytes}, 0, value);
    // The bus lets only accesses through that lie within the four bytes.
    std::ranges::copy(std::span{bytes}.subspan(offset, into.size()), into.begin());
}

void PmTimer::write(std::uint64_t, std::span<const std::byte>) {}

}  // namespace splitvisor::vmm
