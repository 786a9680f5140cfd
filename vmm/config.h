#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/capability.h"
#include "base/result.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "remote-mem/page_store.h"

namespace splitvisor::vmm {

using MacAddress = std::array<std::uint8_t, 6>;

struct ReplicaSpec {
    std::string component;  ///< name of the mComponent, for messages
    std::string endpoint;   ///< fabric::Endpoint text
    RegionId region;
    Capability capability{};
};

/// The regions lie one behind the other in the order of Lines.
struct RegionSpec {
    ByteCount size;
    std::vector<ReplicaSpec> replicas;
};

struct DiskSpec {
    std::string name;
    std::string endpoint;
    VolumeId volume;
    Capability capability{};
    ByteCount size;
    bool read_only = false;
};

struct NetSpec {
    std::string tap;
    MacAddress mac{};
};

/// What one vnode-vmm is to run (README.md, "Configuration").
struct Config {
    std::string name;
    Epoch epoch;
    ByteCount memory;
    ByteCount excache;
    std::uint32_t vcpus = 1;
    std::string kernel;
    std::string initrd;  ///< empty for none
    std::string command_line;
    std::string run_dir;
    std::vector<RegionSpec> regions;
    std::vector<DiskSpec> disks;
    std::vector<NetSpec> nets;
    ept::Mechanism mechanism = ept::Mechanism::kAuto;
    bool torture = false;
};

/// Whether guest RAM is remote, or plain local memory without ExCache and regions (a debugging aid).
enum class MemoryKind { kRemote, kLocal };

/// Parses and checks a configuration. The error is one line that lists everything that is wrong, each with its place:
/// "vcpus: ...; regions[1].size_bytes: ...". Unknown keys are errors. Files and peers are not looked at.
Result<Config> parse_config(std::string_view json, MemoryKind memory_kind);

}  // namespace splitvisor::vmm
