#pragma once

#include <memory>
#include <string>

#include "base/log.h"
#include "remote-mem/client.h"
#include "remote-mem/server.h"
#include "remote-mem/store.h"

namespace splitvisor::fakes {

/// A whole mComponent in this process, reached over loopback TCP unless told otherwise, that a test can stop and start again.
class LocalMemoryMonitor {
  public:
    explicit LocalMemoryMonitor(std::string name, ByteCount capacity = ByteCount{64 * kMiB},
                                const std::string& endpoint = "tcp:127.0.0.1:0")
        : name_{std::move(name)}, capacity_{capacity}
    {
        options_.endpoint = fabric::Endpoint::parse(endpoint).value();
        forget_and_start();
    }

    /// A capability that belongs to the region's number.
    [[nodiscard]] static Capability capability(RegionId region)
    {
        Capability capability{};
        capability[0] = static_cast<std::byte>(region.value());
        capability[15] = std::byte{0xa5};
        return capability;
    }

    void create_region(RegionId region, ByteCount size, Epoch epoch = Epoch{1})
    {
        SPLITVISOR_CHECK(store_->create_region(region, size, capability(region), epoch).ok());
    }
    [[nodiscard]] remote_mem::Replica replica(RegionId region) const
    {
        return {name_, options_.endpoint, region, capability(region)};
    }
    [[nodiscard]] remote_mem::RegionStore& store() { return *store_; }
    [[nodiscard]] const fabric::Endpoint& endpoint() const { return options_.endpoint; }

    /// Ends every connection; nobody gets in any more. The content stays.
    void stop() { server_.reset(); }
    /// The same content at the same endpoint: what was interrupted is the network.
    void start()
    {
        auto server = remote_mem::DataServer::start(options_, *store_);
        SPLITVISOR_CHECK(server.ok());
        server_ = std::move(*server);
        options_.endpoint = server_->endpoint();
    }
    /// The same endpoint without regions: the process was killed and started anew.
    void forget_and_start()
    {
        stop();
        store_ = std::make_unique<remote_mem::RegionStore>(capacity_);
        start();
    }

  private:
    const std::string name_;
    const ByteCount capacity_;
    remote_mem::ServerOptions options_;
    std::unique_ptr<remote_mem::RegionStore> store_;
    std::unique_ptr<remote_mem::DataServer> server_;
};

}  // namespace splitvisor::fakes
