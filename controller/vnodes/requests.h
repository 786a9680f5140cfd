#pragma once

#include <cstdint>
#include <string>

#include "base/units.h"
#include "controller/json/json.h"
#include "controller/model/records.h"
#include "controller/vnodes/problem.h"

namespace splitvisor::controller {

inline constexpr std::uint64_t kMinMemoryBytes = 64 * kMiB;
inline constexpr std::uint64_t kMaxMemoryBytes = 4096 * kGiB;
inline constexpr std::uint64_t kMinExcacheBytes = 16 * kMiB;  ///< 4096 lines
inline constexpr std::uint32_t kMaxVcpus = 32;
inline constexpr std::uint32_t kMaxMemoryCopies = 3;
inline constexpr std::size_t kMaxDisks = 8;
inline constexpr std::size_t kMaxNets = 4;
inline constexpr std::size_t kMaxCmdlineBytes = 2047;
inline constexpr std::uint64_t kMaxGraceMs = 600'000;
inline constexpr std::uint64_t kDefaultGraceMs = 30'000;
inline constexpr std::string_view kDefaultCmdline = "console=ttyS0";

/// A vNode as the body of POST /v1/vnodes asks for it: checked in itself, against nothing else. The record has what the
/// user decides; `start` tells whether it shall run at once. The problem's reasons are all that is wrong.
struct VnodeRequest {
    VnodeRecord record;
    bool start = false;
};
[[nodiscard]] Outcome<VnodeRequest> parse_vnode_request(const Json& body);

/// The body of POST /v1/volumes: name, size and image are set.
[[nodiscard]] Outcome<VolumeRecord> parse_volume_request(const Json& body);

/// The body of a stop; an empty body means the defaults.
struct StopRequest {
    std::uint64_t grace_ms = kDefaultGraceMs;
    bool force = false;
};
[[nodiscard]] Outcome<StopRequest> parse_stop_request(const Json& body);

}  // namespace splitvisor::controller
