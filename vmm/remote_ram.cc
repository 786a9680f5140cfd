
#include "remote-mem/client.h"
#include "vmm/guest_ram.h"

namespace splitvisor::vmm {
namespace {

/// The page store stands first: the engine's threads use it until they end.
class RemoteRam final : public GuestRam {
  public:
    RemoteRam(std::unique_ptr<remote_mem::RemoteMemory> store, std::unique_ptr<ept::FaultEngine> engine)
        : store_{std::move(store)}, engine_{std::move(engine)}
    {
    }

    [[nodiscard]] std::span<std::byte> bytes() const override { return engine_->memory(); }
    void forget(Line first, std::uint32_t count) override { engine_->forget(first, count); }
    [[nodiscard]] std::optional<ept::EngineStats> stats() const override { return engine_->stats(); }

  private:
    std::unique_ptr<remote_mem::RemoteMemory> store_;
    std::unique_ptr<ept::FaultEngine> engine_;
};

Result<remote_mem::RemoteMemoryOptions> store_options(const Config& config)
{
    remote_mem::RemoteMemoryOptions options;
    options.epoch = config.epoch;
    for (const auto& spec : config.regions) {
        remote_mem::RegionOptions region;
        region.size = spec.size;
        for (const auto& replica : spec.replicas) {
            auto endpoint = fabric::Endpoint::parse(replica.endpoint);
            if (!endpoint) return endpoint.error().in("memory on " + replica.component);
            region.replicas.push_back({replica.component, std::move(*endpoint), replica.region, replica.capability});
        }
        options.regions.push_back(std::move(region));
    }
    return options;
}

}  // namespace

Result<std::unique_ptr<GuestRam>> make_remote_ram(const Config& config, std::function<void(const Error&)> on_fatal)
{
    const auto options = store_options(config);
    if (!options) return options.error();
    auto store = remote_mem::RemoteMemory::create(*options);
    if (!store) return store.error();
    ept::EngineOptions engine_options;
    engine_options.memory = config.memory;
    engine_options.excache = config.excache;
    engine_options.mechanism = config.mechanism;
    engine_options.torture = config.torture;
    auto engine = ept::FaultEngine::start(engine_options, **store, std::move(on_fatal));
    if (!engine) return engine.error();
    return std::unique_ptr<GuestRam>{std::make_unique<RemoteRam>(std::move(*store), std::move(*engine))};
}

}  // namespace splitvisor::vmm
