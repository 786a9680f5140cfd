#include "vmm/virtio/virtio_device.h"

#include <algorithm>

namespace splitvisor::vmm::virtio {

void VirtioDevice::write_config(std::uint32_t /*offset*/, std::span<const std::byte> /*from*/) {}

void read_config_bytes(std::span<const std::byte> config, std::uint32_t offset, std::span<std::byte> into)
{
    std::ranges::fill(into, std::byte{0});
    if (offset >= config.size()) return;
    const auto known = config.subspan(offset, std::min(into.size(), config.size() - offset));
    std::ranges::copy(known, into.begin());
}

}  // namespace splitvisor::vmm::virtio
