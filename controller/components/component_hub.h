#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "controller/json/json.h"
#include "controller/model/records.h"

namespace splitvisor::controller {

struct CreateRegion {
    RegionId region;
    ByteCount size;
    std::string capability;
    Epoch epoch;
};
struct DeleteRegion {
    RegionId region;
};
struct CreateVolume {
    VolumeId volume;
    ByteCount size;
    std::string image;
    std::string capability;
    Epoch epoch;
};
struct DeleteVolume {
    VolumeId volume;
};
struct SetVolumeEpoch {
    VolumeId volume;
    Epoch epoch;
};
struct StartVnode {
    std::string name;
    std::string spec_json;
};
struct StopVnode {
    std::string name;
    std::uint64_t grace_ms = 0;
};
struct ControlVnode {
    std::string name;
    std::string command_json;
};
struct ForgetVnode {
    std::string name;
};
struct OpenConsole {
    std::string name;
    std::string session;
};

/// What the controller can ask of components (wire/agent.h says what each does there). All may be repeated.
using Command = std::variant<CreateRegion, DeleteRegion, CreateVolume, DeleteVolume, SetVolumeEpoch, StartVnode,
                             StopVnode, ControlVnode, ForgetVnode, OpenConsole>;

/// The latest a connected component has told about itself.
struct ComponentStatus {
    std::string name;
    ComponentKind kind = ComponentKind::kMemory;
    std::string data_endpoint;
    ByteCount capacity;
    ByteCount used;
    std::vector<std::string> images;
    Json detail;                   ///< an object of the monitor's own
    std::uint64_t heartbeats = 0;  ///< received since it was connected
};

/// The components, as the managers see them. Thread-safe.
class ComponentHub {
  public:
    virtual ~ComponentHub() = default;

    /// Those that are connected and have sent a heartbeat within the limit, by name.
    [[nodiscard]] virtual std::vector<ComponentStatus> connected() const = 0;
    [[nodiscard]] virtual std::optional<ComponentStatus> find(const std::string& name) const = 0;

    /// Waits for the component's answer. A component that is away now is kUnavailable at once; one that goes away
    /// meanwhile is sent the command again when it comes back before the deadline. kTimeout: it may or may not have
    /// been executed.
    [[nodiscard]] virtual Result<std::string> call(const std::string& component, const Command& command,
                                                   std::uint64_t deadline_ms) = 0;
};

}  // namespace splitvisor::controller
