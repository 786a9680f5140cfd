#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "controller/json/json.h"
#include "controller/wire/agent.h"

namespace splitvisor::controller {

using wire::ComponentKind;

[[nodiscard]] std::string_view to_string(ComponentKind kind);

/// What the controller knows to be decided about a vNode. That its pComponent cannot be reached just now ("unknown") is
/// seen from the connections and never stored.
enum class VnodeState {
    kCreating,  ///< reserved, not yet confirmed by every component; undone when the controller restarts
    kStopped,
    kStarting,
    kRunning,
    kStopping,
    kFailed,
};

[[nodiscard]] std::string_view to_string(VnodeState state);

struct ReplicaRecord {
    std::string component;
    RegionId region;
    std::string capability;  ///< 32 hexadecimal digits
    bool lost = false;       ///< its mComponent has lost what it held
    bool operator==(const ReplicaRecord&) const = default;
};

struct RegionRecord {
    ByteCount size;
    std::vector<ReplicaRecord> replicas;
    bool operator==(const RegionRecord&) const = default;
};

struct DiskRecord {
    std::string volume;
    bool read_only = false;
    bool operator==(const DiskRecord&) const = default;
};

struct NetRecord {
    std::string tap;
    std::string mac;
    bool operator==(const NetRecord&) const = default;
};

struct VnodeRecord {
    std::string name;
    ByteCount memory;
    ByteCount excache;
    std::uint32_t vcpus = 1;
    std::string kernel;
    std::string initrd;  ///< may be empty
    std::string cmdline;
    std::string mechanism = "auto";
    bool torture = false;  ///< pages are taken at random all the time: a test of the memory path
    std::uint32_t memory_copies = 1;
    std::vector<DiskRecord> disks;
    std::vector<NetRecord> nets;

    std::string pcomponent;
    std::vector<RegionRecord> regions;
    Epoch epoch;
    VnodeState state = VnodeState::kCreating;
    std::string reason;             ///< why it is in this state, for people
    std::uint64_t created_s = 0;    ///< seconds since 1970
    std::uint64_t changed_s = 0;    ///< when the state was entered
    bool operator==(const VnodeRecord&) const = default;
};

struct VolumeRecord {
    std::string name;
    VolumeId id;
    ByteCount size;
    std::string image;  ///< may be empty
    std::string component;
    std::string capability;
    bool ready = false;  ///< false while it is being created; undone when the controller restarts
    std::uint64_t created_s = 0;
    bool operator==(const VolumeRecord&) const = default;
};

/// A component that was enrolled once.
struct ComponentRecord {
    std::string name;
    ComponentKind kind = ComponentKind::kMemory;
    std::string data_endpoint;
    std::uint64_t incarnation = 0;
    bool operator==(const ComponentRecord&) const = default;
};

/// Something on a component that no vNode or volume uses any more and that is still to be deleted there.
struct DeletionRecord {
    enum class What { kRegion, kVolume };
    std::uint64_t number = 0;  ///< the id of the region or volume
    What what = What::kRegion;
    std::string component;
    ByteCount size;  ///< what it still takes there; 0 where its successor is counted already
    bool operator==(const DeletionRecord&) const = default;
};

[[nodiscard]] Json to_json(const VnodeRecord& record);
[[nodiscard]] Json to_json(const VolumeRecord& record);
[[nodiscard]] Json to_json(const ComponentRecord& record);
[[nodiscard]] Json to_json(const DeletionRecord& record);

Result<VnodeRecord> vnode_from_json(const Json& json);
Result<VolumeRecord> volume_from_json(const Json& json);
Result<ComponentRecord> component_from_json(const Json& json);
Result<DeletionRecord> deletion_from_json(const Json& json);

/// Seconds since 1970.
[[nodiscard]] std::uint64_t wall_clock_s();

/// 16 random bytes as 32 hexadecimal digits.
[[nodiscard]] std::string new_capability();

}  // namespace splitvisor::controller
