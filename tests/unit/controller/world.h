#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/text.h"
#include "controller/api/api.h"
#include "controller/model/catalog.h"
#include "controller/vnodes/component_service.h"
#include "controller/vnodes/vnode_service.h"
#include "controller/vnodes/volume_service.h"
#include "tests/fakes/fake_component_hub.h"
#include "tests/fakes/temporary_directory.h"

namespace splitvisor::controller {

/// A controller without its doors: the services and the API over a store in a file, with fake components.
/// restart() is what a new controller would do.
class World {
  public:
    static constexpr std::uint64_t kRegionBytes = 64 * kMiB;

    World() { open(); }

    void restart()
    {
        services_.reset();
        open();
    }

    void add_processor(const std::string& name, std::uint32_t vcpus = 8, std::uint64_t memory_bytes = kGiB)
    {
        hub.add_processor(name, vcpus, ByteCount{memory_bytes}, {"initrd", "vmlinuz"});
        enrol({name, ComponentKind::kProcessor, {}, 1});
    }
    void add_memory(const std::string& name, std::uint64_t capacity_bytes = kGiB)
    {
        hub.add_memory(name, ByteCount{capacity_bytes});
        enrol({name, ComponentKind::kMemory, "tcp:127.0.0.1:1", 1});
    }
    void add_storage(const std::string& name, std::uint64_t capacity_bytes = kGiB)
    {
        hub.add_storage(name, ByteCount{capacity_bytes}, {"debian"});
        enrol({name, ComponentKind::kStorage, "tcp:127.0.0.1:2", 1});
    }
    /// One of each kind: p1, m1, s1.
    void add_usual()
    {
        add_processor("p1");
        add_memory("m1");
        add_storage("s1");
    }
    static Json vnode_body(const std::string& name, const std::string& memory = "128M")
    {
        return Json::object().set("name", name).set("memory", memory).set("kernel", "vmlinuz");
    }
    static Json volume_body(const std::string& name, const std::string& size = "16M")
    {
        return Json::object().set("name", name).set("size", size);
    }

    [[nodiscard]] Catalog& catalog() { return *services_->catalog; }
    [[nodiscard]] Contents contents()
    {
        return catalog().read([](const Contents& now) { return now; });
    }
    [[nodiscard]] VnodeService& vnodes() { return *services_->vnodes; }
    [[nodiscard]] VolumeService& volumes() { return *services_->volumes; }
    [[nodiscard]] ProcessManager& processes() { return services_->processes; }
    [[nodiscard]] Reaper& reaper() { return *services_->reaper; }
    [[nodiscard]] Api& api() { return *services_->api; }
    [[nodiscard]] std::string token() const
    {
        auto text = read_file(directory / "admin-token", ByteCount{kKiB});
        SPLITVISOR_CHECK(text.ok());
        text->pop_back();
        return *text;
    }

    fakes::TemporaryDirectory directory;
    FakeComponentHub hub;

  private:
    struct Services {
        explicit Services(ComponentHub& hub)
            : processes{hub}, memory{hub, ByteCount{kRegionBytes}}, storage{hub}
        {
        }
        std::unique_ptr<MetaStore> store;
        std::unique_ptr<Catalog> catalog;
        std::optional<Token> admin;
        ConsoleBroker consoles;
        ProcessManager processes;
        MemoryManager memory;
        StorageManager storage;
        std::unique_ptr<Reaper> reaper;
        std::optional<VnodeService> vnodes;
        std::optional<VolumeService> volumes;
        std::optional<ComponentService> components;
        std::optional<Api> api;
    };

    template <typename T>
    static T required(Result<T> result)
    {
        SPLITVISOR_CHECK(result.ok());
        return std::move(*result);
    }

    void open()
    {
        auto& made = services_.emplace(hub);
        made.store = required(open_sqlite_store(directory / "state.db"));
        made.catalog = required(Catalog::load(*made.store));
        made.admin = required(Token::load(*made.store, "admin", directory / "admin-token"));
        made.reaper = std::make_unique<Reaper>(*made.catalog, hub, made.memory, made.storage);
        made.vnodes.emplace(
            VnodeService::Parts{*made.catalog, hub, made.processes, made.memory, made.storage, *made.reaper});
        made.volumes.emplace(*made.catalog, hub, made.storage, *made.reaper);
        made.components.emplace(*made.catalog, hub);
        made.api.emplace(
            Api::Parts{*made.admin, hub, made.consoles, *made.components, *made.vnodes, *made.volumes});
        SPLITVISOR_CHECK(made.vnodes->recover().ok());
        SPLITVISOR_CHECK(made.volumes->recover().ok());
    }

    void enrol(ComponentRecord record)
    {
        SPLITVISOR_CHECK(catalog()
                             .update([&record](Draft& draft) -> Status {
                                 draft.put(record);
                                 return {};
                             })
                             .ok());
    }

    std::optional<Services> services_;
};

}  // namespace splitvisor::controller
