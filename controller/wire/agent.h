#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/units.h"

namespace splitvisor::wire {

/// What the controller asks of a memory monitor. Called by the agent's thread, one at a time.
class MemoryCommands {
  public:
    virtual ~MemoryCommands() = default;
    /// Reserves room for `size` bytes. `capability` is 32 hexadecimal digits. Repeating it with the same arguments is no error. kNoRoom says how much is free.
    virtual Status create_region(RegionId region, ByteCount size, const std::string& capability, Epoch epoch) = 0;
    /// Frees the region. A region that is not there is no error.
    virtual Status delete_region(RegionId region) = 0;
    /// From now on requests with another epoch are refused. The epoch never goes back.
    virtual Status set_region_epoch(RegionId region, Epoch epoch) = 0;
};

/// What the controller asks of a storage monitor.
class StorageCommands {
  public:
    virtual ~StorageCommands() = default;
    /// `image` may be empty (an empty volume) or name one of the monitor's images, whose content is copied.
    virtual Status create_volume(VolumeId volume, ByteCount size, const std::string& image,
                                 const std::string& capability, Epoch epoch) = 0;
    virtual Status delete_volume(VolumeId volume) = 0;
    virtual Status set_volume_epoch(VolumeId volume, Epoch epoch) = 0;
};

/// What the controller asks of a process monitor. Called by several of the agent's threads, for one vNode one at a
/// time, except that control_vnode and open_console may come beside another command for the same vNode.
class ProcessCommands {
  public:
    virtual ~ProcessCommands() = default;
    /// `spec_json` is the vnode-vmm configuration (vmm/README.md). Returns when the VMM runs its guest, or says why not.
    virtual Status start_vnode(const std::string& name, const std::string& spec_json) = 0;
    /// Asks the guest to power off, and ends the VMM after `grace_ms` (0: at once).
    virtual Status stop_vnode(const std::string& name, std::uint64_t grace_ms) = 0;
    /// Sends one command to the VMM's control socket and returns its JSON answer.
    virtual Result<std::string> control_vnode(const std::string& name, const std::string& command_json) = 0;
    /// The vNode is deleted: removes what is kept of it here. One that is not known is no error.
    virtual Status forget_vnode(const std::string& name) = 0;
    /// A stream socket connected to the vNode's serial console.
    virtual Result<Fd> open_console(const std::string& name) = 0;
};

/// Told to the controller in every heartbeat; `detail_json` is an object of the monitor's own figures.
struct Usage {
    ByteCount capacity{};
    ByteCount used{};
    std::vector<std::string> images;  ///< storage monitors: names for `create_volume`
    std::string detail_json = "{}";
};

enum class ComponentKind { kProcessor, kMemory, kStorage };

struct AgentOptions {
    ComponentKind kind = ComponentKind::kMemory;
    std::string name;
    std::string controller;     ///< HOST:PORT of the controller's control listener
    std::string token;          ///< enrolment token
    std::string data_endpoint;  ///< where VMMs reach this component (fabric::Endpoint text); empty for a pComponent
    std::uint64_t incarnation = 0;  ///< differs at each start of a monitor that has lost its state by stopping
    std::function<Usage()> usage;   ///< called by the agent's threads, one at a time, also beside a command; quick
    MemoryCommands* memory = nullptr;
    StorageCommands* storage = nullptr;
    ProcessCommands* process = nullptr;
};

/// A component's side of its connection to the controller: enrols, sends heartbeats, executes commands. Goes on trying
/// for ever when the controller is away; nothing else of the component depends on it.
class Agent {
  public:
    virtual ~Agent() = default;  ///< ends the connection and joins the threads
    /// pComponents: says that a VMM of this lease epoch ended by itself. `exit_status` is as a shell has it: 128 + signal
    /// where a signal ended it, -1 where it is not known. Thread-safe; kept until the controller has heard it.
    virtual void report_vnode_exit(const std::string& name, Epoch epoch, int exit_status, const std::string& reason) = 0;
};

/// Returns when the controller has accepted the component, or with the reason for its refusal. A controller that can't
/// be reached within `patience_ms` is an error.
Result<std::unique_ptr<Agent>> start_agent(AgentOptions options, std::uint64_t patience_ms);

}  // namespace splitvisor::wire
