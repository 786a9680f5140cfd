#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "controller/components/component_hub.h"

namespace splitvisor::controller {

/// Stands in for ComponentRegistry and the components behind it: keeps regions, volumes and VMMs as sets, and
/// answers at once. A test can cut components off, and can answer in their place. Thread-safe.
class FakeComponentHub final : public ComponentHub {
  public:
    struct Vmm {
        Epoch epoch;
        std::string spec_json;
    };
    struct Component {
        ComponentStatus status;
        bool connected = true;
        std::map<std::uint64_t, ByteCount> held{};  ///< regions or volumes
        std::map<std::uint64_t, Epoch> epochs{};    ///< of volumes
        std::map<std::string, Vmm> vmms{};
    };
    struct Sent {
        std::string component;
        Command command;
    };
    /// Answers a call in the component's place; nothing: the component itself answers. Called without a lock
    /// held.
    using Script = std::function<std::optional<Result<std::string>>(const std::string&, const Command&)>;

    void add_processor(const std::string& name, std::uint32_t vcpus, ByteCount memory,
                       const std::vector<std::string>& kernels)
    {
        Component component;
        component.status = {name, ComponentKind::kProcessor, {}, memory, ByteCount{}, {}, Json::object(), 1};
        component.status.detail.set("vcpus", vcpus).set("kernels", Json::array_of(kernels));
        add(std::move(component));
    }
    void add_memory(const std::string& name, ByteCount capacity)
    {
        add({{name,
              ComponentKind::kMemory,
              "tcp:127.0.0.1:1",
              capacity,
              ByteCount{},
              {},
              Json::object(),
              1}});
    }
    void add_storage(const std::string& name, ByteCount capacity, const std::vector<std::string>& images)
    {
        add({{name, ComponentKind::kStorage, "tcp:127.0.0.1:2", capacity, ByteCount{}, images, Json::object(),
              1}});
    }

    void connect(const std::string& name, bool connected)
    {
        const std::lock_guard lock{mutex_};
        components_.at(name).connected = connected;
    }
    void script(Script script)
    {
        const std::lock_guard lock{mutex_};
        script_ = std::move(script);
    }
    /// A component as it is now.
    [[nodiscard]] Component at(const std::string& name) const
    {
        const std::lock_guard lock{mutex_};
        return components_.at(name);
    }
    void change(const std::string& name, const std::function<void(Component&)>& body)
    {
        const std::lock_guard lock{mutex_};
        body(components_.at(name));
    }
    /// One more heartbeat of every component.
    void beat()
    {
        const std::lock_guard lock{mutex_};
        for (auto& [name, component] : components_) ++component.status.heartbeats;
    }
    [[nodiscard]] std::vector<Sent> sent() const
    {
        const std::lock_guard lock{mutex_};
        return sent_;
    }

    /// How often somebody asked for all components.
    [[nodiscard]] std::uint64_t looks() const
    {
        const std::lock_guard lock{mutex_};
        return looks_;
    }

    [[nodiscard]] std::vector<ComponentStatus> connected() const override
    {
        const std::lock_guard lock{mutex_};
        ++looks_;
        std::vector<ComponentStatus> all;
        for (const auto& [name, component] : components_) {
            if (component.connected) all.push_back(report_of(component));
        }
        return all;
    }
    [[nodiscard]] std::optional<ComponentStatus> find(const std::string& name) const override
    {
        const std::lock_guard lock{mutex_};
        const auto found = components_.find(name);
        if (found == components_.end() || !found->second.connected) return std::nullopt;
        return report_of(found->second);
    }
    [[nodiscard]] Result<std::string> call(const std::string& component, const Command& command,
                                           std::uint64_t) override
    {
        Script script;
        {
            const std::lock_guard lock{mutex_};
            sent_.push_back({component, command});
            script = script_;
        }
        if (script) {
            if (auto answer = script(component, command)) return *answer;
        }
        return obey(component, command);
    }

    /// What the component itself does.
    Result<std::string> obey(const std::string& name, const Command& command)
    {
        const std::lock_guard lock{mutex_};
        const auto found = components_.find(name);
        if (found == components_.end() || !found->second.connected) {
            return Error{ErrorCode::kUnavailable, "component " + name + " is not connected"};
        }
        return std::visit([&](const auto& body) { return run(found->second, body); }, command);
    }

  private:
    void add(Component component)
    {
        const std::lock_guard lock{mutex_};
        const std::string name = component.status.name;
        components_.insert_or_assign(name, std::move(component));
    }

    static ByteCount used_of(const Component& component)
    {
        ByteCount sum;
        for (const auto& [id, size] : component.held) sum = sum + size;
        return sum;
    }

    static ComponentStatus report_of(const Component& component)
    {
        ComponentStatus status = component.status;
        status.used = used_of(component);
        if (status.kind != ComponentKind::kProcessor) return status;
        Json vnodes = Json::array();
        for (const auto& [name, vmm] : component.vmms) {
            vnodes.push(
                Json::object().set("name", name).set("epoch", vmm.epoch.value()).set("state", "running"));
        }
        status.detail.set("vnodes", std::move(vnodes));
        return status;
    }

    static Result<std::string> hold(Component& component, std::uint64_t id, ByteCount size)
    {
        if (component.held.contains(id)) return std::string{};
        if ((used_of(component) + size) > component.status.capacity) return Error{ErrorCode::kNoRoom, "full"};
        component.held.emplace(id, size);
        return std::string{};
    }
    static Result<std::string> run(Component& component, const CreateRegion& create)
    {
        return hold(component, create.region.value(), create.size);
    }
    static Result<std::string> run(Component& component, const DeleteRegion& erase)
    {
        component.held.erase(erase.region.value());
        return std::string{};
    }
    static Result<std::string> run(Component& component, const CreateVolume& create)
    {
        component.epochs[create.volume.value()] = create.epoch;
        return hold(component, create.volume.value(), create.size);
    }
    static Result<std::string> run(Component& component, const DeleteVolume& erase)
    {
        component.held.erase(erase.volume.value());
        return std::string{};
    }
    static Result<std::string> run(Component& component, const SetVolumeEpoch& set)
    {
        if (!component.held.contains(set.volume.value()))
            return Error{ErrorCode::kNotFound, "no such volume"};
        component.epochs[set.volume.value()] = set.epoch;
        return std::string{};
    }
    static Result<std::string> run(Component& component, const StartVnode& start)
    {
        const auto spec = Json::parse(start.spec_json);
        if (!spec) return spec.error();
        component.vmms.insert_or_assign(start.name, Vmm{Epoch{spec->number("epoch")}, start.spec_json});
        return std::string{};
    }
    static Result<std::string> run(Component& component, const StopVnode& stop)
    {
        component.vmms.erase(stop.name);
        return std::string{};
    }
    static Result<std::string> run(Component& component, const ControlVnode& control)
    {
        if (!component.vmms.contains(control.name))
            return Error{ErrorCode::kNotFound, "it does not run here"};
        return std::string{R"({"ok":true,"exits":{"mmio":1}})"};
    }
    static Result<std::string> run(Component& component, const ForgetVnode& forget)
    {
        if (component.vmms.contains(forget.name)) return Error{ErrorCode::kExists, "it runs"};
        return std::string{};
    }
    static Result<std::string> run(Component& component, const OpenConsole& open)
    {
        if (!component.vmms.contains(open.name)) return Error{ErrorCode::kNotFound, "it does not run here"};
        return std::string{};
    }

    mutable std::mutex mutex_;
    std::map<std::string, Component> components_;
    std::vector<Sent> sent_;
    mutable std::uint64_t looks_ = 0;
    Script script_;
};

}  // namespace splitvisor::controller
