#include "vmm/devices/power.h"

#include <algorithm>

namespace splitvisor::vmm {

void PowerPort::read(std::uint64_t, std::span<std::byte> into)
{
    // Sleep status: WAK_STS clear, as the machine never slept.
    std::ranges::fill(into, std::byte{0});
}

void PowerPort::write(std::uint64_t, std::span<const std::byte> from)
{
    constexpr auto kSoftOff = std::byte{(5 << 2) | (1 << 5)};  // SLP_TYP 5, SLP_EN
    constexpr auto kReset = std::byte{1};
    if (from[0] == kSoftOff) on_request_(PowerRequest::kOff);
    if (from[0] == kReset) on_request_(PowerRequest::kReset);
}

void I8042Reset::read(std::uint64_t, std::span<std::byte> into)
{
    // Status: input buffer empty, so that the kernel does not wait before its command.
    std::ranges::fill(into, std::byte{0});
}

void I8042Reset::write(std::uint64_t, std::span<const std::byte> from)
{
    constexpr auto kPulseResetLine = std::byte{0xfe};
    if (from[0] == kPulseResetLine) on_request_(PowerRequest::kReset);
}

}  // namespace splitvisor::vmm
