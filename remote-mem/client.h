#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "fabric/connection.h"
#include "remote-mem/page_store.h"

namespace splitvisor::remote_mem {

/// One copy of a vRegion.
struct Replica {
    std::string component;  ///< the mComponent's name, for people
    fabric::Endpoint endpoint;
    RegionId region;
    Capability capability{};
};

inline constexpr std::size_t kMaxReplicas = 8;

struct RegionOptions {
    ByteCount size{};               ///< a multiple of the page size, not 0
    std::vector<Replica> replicas;  ///< 1 to kMaxReplicas, on different components; reads prefer the first
};

struct RemoteMemoryOptions {
    std::vector<RegionOptions> regions;  ///< in the order of the Lines that they hold
    Epoch epoch;
    /// How long a call goes on trying to reach an mComponent. After that a replica that did not take a write
    /// is given up for good, if another one took it.
    std::uint64_t patience_ms = 10'000;
};

struct LostReplica {
    std::string component;
    RegionId region;
};

/// Since start, all sessions together.
struct RemoteMemoryStats {
    std::uint64_t requests = 0;
    std::uint64_t pages_read = 0;     ///< present or not
    std::uint64_t pages_written = 0;  ///< counted once, however many replicas there are
    std::uint64_t pages_dropped = 0;
    std::uint64_t stale_pages = 0;    ///< acknowledged by a replica that held a newer version already
    std::uint64_t connects = 0;       ///< connections made
    std::uint64_t failures = 0;       ///< connections given up: broken, silent for too long, or not possible
    std::uint64_t corrupt_pages = 0;  ///< failed their checksum in an mComponent's memory
    std::vector<LostReplica> lost;    ///< never used again by this VMM; the controller should replace them
};

class Placement;

/// The memory of one vNode on its mComponents: the client's side of remote-mem.
///
/// A page is written to every live replica of its vRegion and read from one of them. A replica is lost, for
/// the life of this object and for all sessions, when its mComponent has forgotten the region or has missed a
/// write; the last live replica is never given up for missing a write: the call fails instead and can be
/// repeated. Thus whatever a live replica answers is at least as new as every write and drop that returned
/// before the read began.
class RemoteMemory final : public PageStore {
  public:
    /// kInvalid: sizes or replicas that make no sense. Connects to nobody yet.
    static Result<std::unique_ptr<RemoteMemory>> create(const RemoteMemoryOptions& options);
    ~RemoteMemory() override;

    /// Sessions must not outlive this object. Fails where a vRegion has no replica that lets us in.
    [[nodiscard]] Result<std::unique_ptr<PageSession>> open_session() override;

    [[nodiscard]] RemoteMemoryStats stats() const;

  private:
    explicit RemoteMemory(std::unique_ptr<Placement> placement);
    const std::unique_ptr<Placement> placement_;
};

}  // namespace splitvisor::remote_mem
