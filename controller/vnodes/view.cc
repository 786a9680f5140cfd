#include "controller/vnodes/view.h"

#include <time.h>

#include <array>

namespace splitvisor::controller {

namespace {

Json nets_json(const VnodeRecord& record)
{
    Json nets = Json::array();
    for (const NetRecord& net : record.nets) nets.push(Json::object().set("tap", net.tap).set("mac", net.mac));
    return nets;
}

std::string endpoint_of(const Contents& contents, const std::string& component)
{
    const auto found = contents.components.find(component);
    return found != contents.components.end() ? found->second.data_endpoint : std::string{};
}

}  // namespace

Json utc_text(std::uint64_t seconds)
{
    if (seconds == 0) return {};
    const auto time = static_cast<time_t>(seconds);
    tm parts{};
    std::array<char, 32> text{};
    if (::gmtime_r(&time, &parts) == nullptr) return {};
    return std::string_view{text.data(), ::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

Json vnode_view(const VnodeRecord& record, std::string_view state, std::string_view reason)
{
    Json volumes = Json::array();
    for (const DiskRecord& disk : record.disks) {
        volumes.push(Json::object().set("name", disk.volume).set("read_only", disk.read_only));
    }
    Json regions = Json::array();
    std::uint64_t lost = 0;
    for (const RegionRecord& region : record.regions) {
        Json components = Json::array();
        for (const ReplicaRecord& replica : region.replicas) {
            components.push(replica.component);
            if (replica.lost) ++lost;
        }
        regions.push(Json::object().set("size_bytes", region.size.value()).set("components", std::move(components)));
    }
    return Json::object()
        .set("name", record.name)
        .set("state", state)
        .set("reason", reason)
        .set("memory_bytes", record.memory.value())
        .set("excache_bytes", record.excache.value())
        .set("vcpus", record.vcpus)
        .set("kernel", record.kernel)
        .set("initrd", record.initrd.empty() ? Json{} : Json{record.initrd})
        .set("cmdline", record.cmdline)
        .set("mechanism", record.mechanism)
        .set("torture", record.torture)
        .set("volumes", std::move(volumes))
        .set("nets", nets_json(record))
        .set("memory_copies", record.memory_copies)
        .set("lost_replicas", lost)
        .set("regions", std::move(regions))
        .set("pcomponent", record.pcomponent)
        .set("epoch", record.epoch.value())
        .set("created", utc_text(record.created_s))
        .set("changed", utc_text(record.changed_s));
}

Json vmm_spec(const Contents& contents, const VnodeRecord& record)
{
    Json regions = Json::array();
    for (const RegionRecord& region : record.regions) {
        Json replicas = Json::array();
        for (const ReplicaRecord& replica : region.replicas) {
            replicas.push(Json::object()
                              .set("component", replica.component)
                              .set("endpoint", endpoint_of(contents, replica.component))
                              .set("region", replica.region.value())
                              .set("capability", replica.capability));
        }
        regions.push(Json::object().set("size_bytes", region.size.value()).set("replicas", std::move(replicas)));
    }
    Json disks = Json::array();
    for (const DiskRecord& disk : record.disks) {
        const auto volume = contents.volumes.find(disk.volume);
        if (volume == contents.volumes.end()) continue;
        disks.push(Json::object()
                       .set("name", disk.volume)
                       .set("endpoint", endpoint_of(contents, volume->second.component))
                       .set("volume", volume->second.id.value())
                       .set("capability", volume->second.capability)
                       .set("size_bytes", volume->second.size.value())
                       .set("read_only", disk.read_only));
    }
    Json spec = Json::object();
    spec.set("name", record.name)
        .set("epoch", record.epoch.value())
        .set("memory_bytes", record.memory.value())
        .set("excache_bytes", record.excache.value())
        .set("vcpus", record.vcpus)
        .set("kernel", record.kernel);
    if (!record.initrd.empty()) spec.set("initrd", record.initrd);
    return spec.set("cmdline", record.cmdline)
        .set("regions", std::move(regions))
        .set("disks", std::move(disks))
        .set("nets", nets_json(record))
        .set("memory_mechanism", record.mechanism)
        .set("torture", record.torture);
}

}  // namespace splitvisor::controller
