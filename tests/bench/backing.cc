#include "tests/bench/backing.h"

#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "remote-mem/client.h"
#include "tests/bench/in_process_store.h"
#include "tests/bench/server_process.h"

namespace splitvisor::bench {
namespace {

class InProcessBacking final : public Backing {
  public:
    Result<std::unique_ptr<remote_mem::PageStore>> open(ByteCount memory) override
    {
        return make_in_process_store(memory);
    }
};

/// vRegions of 1 GiB on one mComponent, as a vNode gets them.
class ServerBacking final : public Backing {
  public:
    explicit ServerBacking(ServerProcess server) : server_{std::move(server)} {}

    Result<std::unique_ptr<remote_mem::PageStore>> open(ByteCount memory) override
    {
        SPLITVISOR_TRY(delete_regions());
        remote_mem::RemoteMemoryOptions options;
        options.epoch = Epoch{1};
        for (std::uint64_t offset = 0; offset < memory.value(); offset += kGiB) {
            auto region = create_region(ByteCount{std::min(kGiB, memory.value() - offset)});
            if (!region) return region.error();
            options.regions.push_back(std::move(*region));
        }
        auto store = remote_mem::RemoteMemory::create(options);
        if (!store) return store.error();
        return std::unique_ptr<remote_mem::PageStore>{std::move(*store)};
    }

  private:
    Result<remote_mem::RegionOptions> create_region(ByteCount size)
    {
        remote_mem::Replica replica{
            .component = "server", .endpoint = server_.endpoint(), .region = RegionId{++last_region_}, .capability = {}};
        if (::getentropy(replica.capability.data(), replica.capability.size()) != 0) {
            return Error::from_errno("getentropy");
        }
        SPLITVISOR_TRY(server_.create_region(replica.region, size, replica.capability));
        regions_.push_back(replica.region);
        return remote_mem::RegionOptions{.size = size, .replicas = {replica}};
    }

    Status delete_regions()
    {
        for (; !regions_.empty(); regions_.pop_back()) SPLITVISOR_TRY(server_.delete_region(regions_.back()));
        return {};
    }

    ServerProcess server_;
    std::uint64_t last_region_ = 0;
    std::vector<RegionId> regions_;
};

}  // namespace

Result<BackingKind> parse_backing(std::string_view text)
{
    for (const auto kind : {BackingKind::kTcp, BackingKind::kShm, BackingKind::kInProcess, BackingKind::kLocal}) {
        if (to_string(kind) == text) return kind;
    }
    return Error{ErrorCode::kInvalid, "'" + std::string{text} + "' is not a backing; there are tcp, shm, inprocess, local"};
}

std::string_view to_string(BackingKind kind)
{
    switch (kind) {
    case BackingKind::kTcp: return "tcp";
    case BackingKind::kShm: return "shm";
    case BackingKind::kInProcess: return "inprocess";
    case BackingKind::kLocal: return "local";
    }
    return "unknown";
}

Result<std::unique_ptr<Backing>> make_backing(BackingKind kind, ByteCount capacity)
{
    switch (kind) {
    case BackingKind::kLocal: break;
    case BackingKind::kInProcess: return std::unique_ptr<Backing>{std::make_unique<InProcessBacking>()};
    case BackingKind::kTcp:
    case BackingKind::kShm: {
        using Scheme = fabric::Endpoint::Scheme;
        auto server = ServerProcess::start(capacity, kind == BackingKind::kTcp ? Scheme::kTcp : Scheme::kShm);
        if (!server) return server.error();
        return std::unique_ptr<Backing>{std::make_unique<ServerBacking>(std::move(*server))};
    }
    }
    return Error{ErrorCode::kInvalid, "local memory has no backing"};
}

}  // namespace splitvisor::bench
