#include "controller/model/records.h"

#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "base/log.h"
#include "base/text.h"

namespace splitvisor::controller {

namespace {

constexpr std::array kVnodeStates = {VnodeState::kCreating, VnodeState::kStopped,  VnodeState::kStarting,
                                     VnodeState::kRunning,  VnodeState::kStopping, VnodeState::kFailed};
constexpr std::array kKinds = {ComponentKind::kProcessor, ComponentKind::kMemory, ComponentKind::kStorage};

/// The value whose text it is.
template <typename T, std::size_t N>
std::optional<T> from_text(const std::array<T, N>& values, std::string_view text)
{
    const auto found = std::find_if(values.begin(), values.end(), [text](T value) { return to_string(value) == text; });
    if (found == values.end()) return std::nullopt;
    return *found;
}

Error corrupt(std::string_view what)
{
    return {ErrorCode::kCorrupt, "state database: not a " + std::string{what} + " record"};
}

std::uint32_t small_number(const Json& json, std::string_view key, std::uint32_t fallback)
{
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(json.number(key, fallback), std::numeric_limits<std::uint32_t>::max()));
}

Json regions_to_json(const std::vector<RegionRecord>& regions)
{
    Json list = Json::array();
    for (const RegionRecord& region : regions) {
        Json replicas = Json::array();
        for (const ReplicaRecord& replica : region.replicas) {
            replicas.push(Json::object()
                              .set("component", replica.component)
                              .set("region", replica.region.value())
                              .set("capability", replica.capability)
                              .set("lost", replica.lost));
        }
        list.push(Json::object().set("size_bytes", region.size.value()).set("replicas", std::move(replicas)));
    }
    return list;
}

std::vector<RegionRecord> regions_from_json(const Json& json)
{
    std::vector<RegionRecord> regions;
    for (const Json& region : json.elements("regions")) {
        RegionRecord record{ByteCount{region.number("size_bytes")}, {}};
        for (const Json& replica : region.elements("replicas")) {
            record.replicas.push_back({replica.text("component"), RegionId{replica.number("region")},
                                       replica.text("capability"), replica.flag("lost")});
        }
        regions.push_back(std::move(record));
    }
    return regions;
}

}  // namespace

std::string_view to_string(ComponentKind kind)
{
    switch (kind) {
    case ComponentKind::kProcessor: return "processor";
    case ComponentKind::kMemory: return "memory";
    case ComponentKind::kStorage: return "storage";
    }
    return "";
}

std::string_view to_string(VnodeState state)
{
    switch (state) {
    case VnodeState::kCreating: return "creating";
    case VnodeState::kStopped: return "stopped";
    case VnodeState::kStarting: return "starting";
    case VnodeState::kRunning: return "running";
    case VnodeState::kStopping: return "stopping";
    case VnodeState::kFailed: return "failed";
    }
    return "";
}

Json to_json(const VnodeRecord& record)
{
    Json disks = Json::array();
    for (const DiskRecord& disk : record.disks) {
        disks.push(Json::object().set("volume", disk.volume).set("read_only", disk.read_only));
    }
    Json nets = Json::array();
    for (const NetRecord& net : record.nets) nets.push(Json::object().set("tap", net.tap).set("mac", net.mac));
    return Json::object()
        .set("name", record.name)
        .set("memory_bytes", record.memory.value())
        .set("excache_bytes", record.excache.value())
        .set("vcpus", record.vcpus)
        .set("kernel", record.kernel)
        .set("initrd", record.initrd)
        .set("cmdline", record.cmdline)
        .set("mechanism", record.mechanism)
        .set("torture", record.torture)
        .set("memory_copies", record.memory_copies)
        .set("disks", std::move(disks))
        .set("nets", std::move(nets))
        .set("pcomponent", record.pcomponent)
        .set("regions", regions_to_json(record.regions))
        .set("epoch", record.epoch.value())
        .set("state", to_string(record.state))
        .set("reason", record.reason)
        .set("created_s", record.created_s)
        .set("changed_s", record.changed_s);
}

Result<VnodeRecord> vnode_from_json(const Json& json)
{
    const auto state = from_text(kVnodeStates, json.text("state"));
    if (!state || json.text("name").empty()) return corrupt("vNode");
    VnodeRecord record;
    record.name = json.text("name");
    record.memory = ByteCount{json.number("memory_bytes")};
    record.excache = ByteCount{json.number("excache_bytes")};
    record.vcpus = small_number(json, "vcpus", 1);
    record.kernel = json.text("kernel");
    record.initrd = json.text("initrd");
    record.cmdline = json.text("cmdline");
    record.mechanism = json.text("mechanism", "auto");
    record.torture = json.flag("torture");
    record.memory_copies = small_number(json, "memory_copies", 1);
    for (const Json& disk : json.elements("disks")) {
        record.disks.push_back({disk.text("volume"), disk.flag("read_only")});
    }
    for (const Json& net : json.elements("nets")) record.nets.push_back({net.text("tap"), net.text("mac")});
    record.pcomponent = json.text("pcomponent");
    record.regions = regions_from_json(json);
    record.epoch = Epoch{json.number("epoch")};
    record.state = *state;
    record.reason = json.text("reason");
    record.created_s = json.number("created_s");
    record.changed_s = json.number("changed_s");
    return record;
}

Json to_json(const VolumeRecord& record)
{
    return Json::object()
        .set("name", record.name)
        .set("id", record.id.value())
        .set("size_bytes", record.size.value())
        .set("image", record.image)
        .set("component", record.component)
        .set("capability", record.capability)
        .set("ready", record.ready)
        .set("created_s", record.created_s);
}

Result<VolumeRecord> volume_from_json(const Json& json)
{
    if (json.text("name").empty()) return corrupt("volume");
    return VolumeRecord{json.text("name"),
                        VolumeId{json.number("id")},
                        ByteCount{json.number("size_bytes")},
                        json.text("image"),
                        json.text("component"),
                        json.text("capability"),
                        json.flag("ready"),
                        json.number("created_s")};
}

Json to_json(const ComponentRecord& record)
{
    return Json::object()
        .set("name", record.name)
        .set("kind", to_string(record.kind))
        .set("data_endpoint", record.data_endpoint)
        .set("incarnation", record.incarnation);
}

Result<ComponentRecord> component_from_json(const Json& json)
{
    const auto kind = from_text(kKinds, json.text("kind"));
    if (!kind || json.text("name").empty()) return corrupt("component");
    return ComponentRecord{json.text("name"), *kind, json.text("data_endpoint"), json.number("incarnation")};
}

Json to_json(const DeletionRecord& record)
{
    return Json::object()
        .set("number", record.number)
        .set("what", record.what == DeletionRecord::What::kRegion ? "region" : "volume")
        .set("component", record.component)
        .set("size_bytes", record.size.value());
}

Result<DeletionRecord> deletion_from_json(const Json& json)
{
    const std::string what = json.text("what");
    if (what != "region" && what != "volume") return corrupt("deletion");
    return DeletionRecord{json.number("number"),
                          what == "region" ? DeletionRecord::What::kRegion : DeletionRecord::What::kVolume,
                          json.text("component"), ByteCount{json.number("size_bytes")}};
}

std::uint64_t wall_clock_s()
{
    return static_cast<std::uint64_t>(::time(nullptr));
}

std::string new_capability()
{
    std::array<char, 16> bytes{};
    SPLITVISOR_CHECK(::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    return to_hex({bytes.data(), bytes.size()});
}

}  // namespace splitvisor::controller
