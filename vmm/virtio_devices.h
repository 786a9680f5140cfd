#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/guest_memory.h"
#include "vmm/guest_ram.h"
#include "vmm/virtio/virtio_device.h"
#include "vstore/block_backend.h"

namespace splitvisor::vmm {

/// Reads a device's counters, by name; valid as long as the device lives.
using VirtioCounters = std::function<std::vector<std::pair<std::string, std::uint64_t>>()>;

/// A virtio device on its way to a window of the machine.
struct VirtioSlot {
    std::string kind;  ///< "disk", "net", "balloon", "entropy"
    std::string name;
    std::unique_ptr<virtio::VirtioDevice> device;
    VirtioCounters counters;
};

using Disks = std::vector<std::unique_ptr<vstore::BlockBackend>>;

/// Connects to the volumes, in the order of the configuration. They stay connected over resets of the machine.
Result<Disks> open_disks(const Config& config);

/// The devices of one power cycle, in the order of their windows: disks (the first is vda), network cards, balloon,
/// entropy source. `memory`, `ram` and `disks` outlive them.
Result<std::vector<VirtioSlot>> make_virtio_devices(const Config& config, const GuestMemory& memory, GuestRam& ram,
                                                    const Disks& disks);

}  // namespace splitvisor::vmm
