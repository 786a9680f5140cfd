#include "vmm/virtio_devices.h"


#include "base/log.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/block.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/rng.h"
#include "vstore/client.h"

namespace splitvisor::vmm {
namespace {

void log_volume_state(const std::string& disk, vstore::VolumeState state, const std::string& reason)
{
    const auto fields = field("disk", disk) + field("reason", reason);
    switch (state) {
    case vstore::VolumeState::kConnected: return log_info("disk connected", fields);
    case vstore::VolumeState::kReconnecting: return log_warning("disk waits for its sComponent", fields);
    case vstore::VolumeState::kFailed: return log_error("disk failed for good", fields);
    }
}

Result<VirtioSlot> make_disk(const DiskSpec& spec, vstore::BlockBackend& backend)
{
    auto disk = virtio::Block::create(backend, spec.name);
    if (!disk) return disk.error().in("disk " + spec.name);
    auto counters = [disk = disk->get()] {
        const auto now = disk->counters();
        return std::vector<std::pair<std::string, std::uint64_t>>{
            {"reads", now.reads},           {"writes", now.writes},
            {"flushes", now.flushes},       {"discards", now.discards},
            {"read_bytes", now.read_bytes}, {"written_bytes", now.written_bytes},
            {"errors", now.errors},         {"bad_chains", now.bad_chains}};
    };
    return VirtioSlot{"disk", spec.name, std::move(*disk), std::move(counters)};
}

Result<VirtioSlot> make_net(const NetSpec& spec)
{
    auto tap = virtio::TapDevice::open(spec.tap);
    if (!tap) return tap.error().in("net " + spec.tap);
    auto net = virtio::Net::create(std::move(*tap), spec.mac);
    if (!net) return net.error().in("net " + spec.tap);
    auto counters = [net = net->get()] {
        const auto now = net->counters();
        return std::vector<std::pair<std::string, std::uint64_t>>{
            {"received", now.received}, {"received_bytes", now.received_bytes},
            {"sent", now.sent},         {"sent_bytes", now.sent_bytes},
            {"receive_dropped", now.receive_dropped}, {"send_dropped", now.send_dropped},
            {"bad_chains", now.bad_chains}};
    };
    return VirtioSlot{"net", spec.tap, std::move(*net), std::move(counters)};
}

Result<VirtioSlot> make_balloon(const GuestMemory& memory, GuestRam& ram)
{
    auto balloon = virtio::Balloon::create(memory, [&ram](Line first, std::uint32_t count) { ram.forget(first, count); });
    if (!balloon) return balloon.error().in("balloon");
    auto counters = [balloon = balloon->get()] {
        const auto now = balloon->counters();
        return std::vector<std::pair<std::string, std::uint64_t>>{{"inflated_pages", now.inflated_pages},
                                                                  {"deflated_pages", now.deflated_pages},
                                                                  {"reported_pages", now.reported_pages},
                                                                  {"refused_pages", now.refused_pages},
                                                                  {"bad_chains", now.bad_chains}};
    };
    return VirtioSlot{"balloon", "balloon", std::move(*balloon), std::move(counters)};
}

Result<VirtioSlot> make_entropy()
{
    auto rng = virtio::Rng::create();
    if (!rng) return rng.error().in("entropy");
    auto counters = [rng = rng->get()] {
        const auto now = rng->counters();
        return std::vector<std::pair<std::string, std::uint64_t>>{
            {"requests", now.requests}, {"bytes", now.bytes}, {"bad_chains", now.bad_chains}};
    };
    return VirtioSlot{"entropy", "entropy", std::move(*rng), std::move(counters)};
}

}  // namespace

Result<Disks> open_disks(const Config& config)
{
    Disks disks;
    for (const auto& spec : config.disks) {
        auto endpoint = fabric::Endpoint::parse(spec.endpoint);
        if (!endpoint) return endpoint.error().in("disk " + spec.name);
        vstore::RemoteVolumeOptions options;
        options.name = spec.name;
        options.endpoint = std::move(*endpoint);
        options.volume = spec.volume;
        options.capability = spec.capability;
        options.epoch = config.epoch;
        options.read_only = spec.read_only;
        options.size = spec.size;
        options.on_state = [name = spec.name](vstore::VolumeState state, const std::string& reason) {
            log_volume_state(name, state, reason);
        };
        auto volume = vstore::RemoteVolume::open(std::move(options));
        if (!volume) return volume.error().in("disk " + spec.name);
        disks.push_back(std::move(*volume));
    }
    return disks;
}

Result<std::vector<VirtioSlot>> make_virtio_devices(const Config& config, const GuestMemory& memory, GuestRam& ram,
                                                    const Disks& disks)
{
    std::vector<Result<VirtioSlot>> made;
    for (std::size_t i = 0; i < disks.size(); ++i) made.push_back(make_disk(config.disks[i], *disks[i]));
    for (const auto& net : config.nets) made.push_back(make_net(net));
    made.push_back(make_balloon(memory, ram));
    made.push_back(make_entropy());
    std::vector<VirtioSlot> slots;
    for (auto& slot : made) {
        if (!slot) return slot.error();
        slots.push_back(std::move(*slot));
    }
    return slots;
}

}  // namespace splitvisor::vmm
