#include "controller/model/catalog.h"

#include <algorithm>

#include "base/text.h"

namespace splitvisor::controller {

namespace {

constexpr std::string_view kVnodePrefix = "vnode/";
constexpr std::string_view kVolumePrefix = "volume/";
constexpr std::string_view kComponentPrefix = "component/";
constexpr std::string_view kDeletionPrefix = "deletion/";
constexpr std::string_view kLastIdKey = "last-id";
constexpr std::string_view kLastEpochKey = "last-epoch";

std::string key_of(std::string_view prefix, const std::string& name)
{
    return std::string{prefix} + name;
}

Status load_number(MetaStore& store, std::string_view key, std::uint64_t& into)
{
    const auto entry = store.get(key);
    if (!entry) return entry.error();
    if (!*entry) return {};
    const auto number = parse_number((*entry)->value);
    if (!number) return number.error().in("state database: " + std::string{key});
    into = *number;
    return {};
}

/// Reads all records with a prefix into a map.
template <typename Map, typename FromJson, typename KeyOf>
Status load_records(MetaStore& store, std::string_view prefix, Map& into, FromJson from_json, KeyOf map_key)
{
    const auto entries = store.range(prefix);
    if (!entries) return entries.error();
    for (const Entry& entry : *entries) {
        const auto json = Json::parse(entry.value);
        if (!json) return json.error().in("state database: " + entry.key);
        auto record = from_json(*json);
        if (!record) return record.error().in(entry.key);
        auto key = map_key(*record);
        into.emplace(std::move(key), std::move(*record));
    }
    return {};
}

}  // namespace

const VnodeRecord* Contents::user_of(const std::string& volume) const
{
    for (const auto& [name, vnode] : vnodes) {
        const auto uses = [&volume](const DiskRecord& disk) { return disk.volume == volume; };
        if (std::any_of(vnode.disks.begin(), vnode.disks.end(), uses)) return &vnode;
    }
    return nullptr;
}

ByteCount Contents::allocated_on(const std::string& component) const
{
    ByteCount sum;
    for (const auto& [name, vnode] : vnodes) {
        for (const RegionRecord& region : vnode.regions) {
            for (const ReplicaRecord& replica : region.replicas) {
                if (replica.component == component) sum = sum + region.size;
            }
        }
    }
    for (const auto& [name, volume] : volumes) {
        if (volume.component == component) sum = sum + volume.size;
    }
    for (const auto& [number, deletion] : deletions) {
        if (deletion.component == component) sum = sum + deletion.size;
    }
    return sum;
}

const VnodeRecord* Draft::vnode(const std::string& name) const
{
    const auto found = contents_.vnodes.find(name);
    return found != contents_.vnodes.end() ? &found->second : nullptr;
}

const VolumeRecord* Draft::volume(const std::string& name) const
{
    const auto found = contents_.volumes.find(name);
    return found != contents_.volumes.end() ? &found->second : nullptr;
}

void Draft::note(std::string key, std::optional<std::string> value)
{
    changes_.push_back({std::move(key), std::move(value)});
}

void Draft::put(VnodeRecord record)
{
    note(key_of(kVnodePrefix, record.name), to_json(record).dump());
    contents_.vnodes.insert_or_assign(record.name, std::move(record));
}

void Draft::put(VolumeRecord record)
{
    note(key_of(kVolumePrefix, record.name), to_json(record).dump());
    contents_.volumes.insert_or_assign(record.name, std::move(record));
}

void Draft::put(ComponentRecord record)
{
    note(key_of(kComponentPrefix, record.name), to_json(record).dump());
    contents_.components.insert_or_assign(record.name, std::move(record));
}

void Draft::put(DeletionRecord record)
{
    note(key_of(kDeletionPrefix, std::to_string(record.number)), to_json(record).dump());
    contents_.deletions.insert_or_assign(record.number, std::move(record));
}

void Draft::erase_vnode(const std::string& name)
{
    note(key_of(kVnodePrefix, name), std::nullopt);
    contents_.vnodes.erase(name);
}

void Draft::erase_volume(const std::string& name)
{
    note(key_of(kVolumePrefix, name), std::nullopt);
    contents_.volumes.erase(name);
}

void Draft::erase_deletion(std::uint64_t number)
{
    note(key_of(kDeletionPrefix, std::to_string(number)), std::nullopt);
    contents_.deletions.erase(number);
}

std::uint64_t Draft::new_id()
{
    note(std::string{kLastIdKey}, std::to_string(++contents_.last_id));
    return contents_.last_id;
}

Epoch Draft::new_epoch()
{
    note(std::string{kLastEpochKey}, std::to_string(++contents_.last_epoch));
    return Epoch{contents_.last_epoch};
}

void Draft::delete_regions(const std::vector<RegionRecord>& regions, bool counted)
{
    for (const RegionRecord& region : regions) {
        for (const ReplicaRecord& replica : region.replicas) {
            put(DeletionRecord{replica.region.value(), DeletionRecord::What::kRegion, replica.component,
                               counted ? region.size : ByteCount{}});
        }
    }
}

void Draft::mark_lost(const std::string& component)
{
    std::vector<VnodeRecord> changed;
    for (const auto& [name, vnode] : contents_.vnodes) {
        VnodeRecord marked = vnode;
        for (RegionRecord& region : marked.regions) {
            for (ReplicaRecord& replica : region.replicas) {
                if (replica.component == component) replica.lost = true;
            }
        }
        if (marked != vnode) changed.push_back(std::move(marked));
    }
    for (VnodeRecord& vnode : changed) put(std::move(vnode));
}

Result<std::unique_ptr<Catalog>> Catalog::load(MetaStore& store)
{
    std::unique_ptr<Catalog> catalog{new Catalog{store}};
    SPLITVISOR_TRY(catalog->load_contents());
    return catalog;
}

Status Catalog::load_contents()
{
    const auto name = [](const auto& record) { return record.name; };
    SPLITVISOR_TRY(load_records(store_, kVnodePrefix, contents_.vnodes, vnode_from_json, name));
    SPLITVISOR_TRY(load_records(store_, kVolumePrefix, contents_.volumes, volume_from_json, name));
    SPLITVISOR_TRY(load_records(store_, kComponentPrefix, contents_.components, component_from_json, name));
    SPLITVISOR_TRY(load_records(store_, kDeletionPrefix, contents_.deletions, deletion_from_json,
                                [](const DeletionRecord& record) { return record.number; }));
    SPLITVISOR_TRY(load_number(store_, kLastIdKey, contents_.last_id));
    return load_number(store_, kLastEpochKey, contents_.last_epoch);
}

Status Catalog::update(const std::function<Status(Draft&)>& body)
{
    const std::lock_guard lock{mutex_};
    Draft draft{contents_};
    SPLITVISOR_TRY(body(draft));
    if (draft.changes_.empty()) return {};
    SPLITVISOR_TRY(store_.commit({}, draft.changes_));
    contents_ = std::move(draft.contents_);
    return {};
}

}  // namespace splitvisor::controller
