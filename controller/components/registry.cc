#include "controller/components/registry.h"

#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "controller/wire/protocol.h"

namespace splitvisor::controller {

namespace {

constexpr std::size_t kMaxCalls = 4096;
/// Added to a call's deadline for the way there and back.
constexpr std::uint64_t kCallSlackMs = 500;

/// Call ids of one run of the controller must not meet those of an earlier run in a component's memory.
std::uint64_t random_start()
{
    std::uint64_t number = 0;
    SPLITVISOR_CHECK(::getrandom(&number, sizeof number, 0) == sizeof number);
    return number;
}

std::uint64_t remaining_ms(std::uint64_t deadline_ms)
{
    const std::uint64_t now = now_ms();
    return deadline_ms > now ? deadline_ms - now : 0;
}

}  // namespace

ComponentRegistry::ComponentRegistry(Catalog& catalog, RegistryOptions options)
    : catalog_{catalog}, options_{std::move(options)}, next_call_{random_start()}
{
}

std::optional<EnrolRefusal> ComponentRegistry::enrol(const EnrolRequest& request, std::shared_ptr<ComponentLink> link)
{
    if (auto refusal = check(request)) return refusal;
    std::shared_ptr<ComponentLink> replaced;
    {
        const std::lock_guard lock{mutex_};
        const auto existing = sessions_.find(request.name);
        if (existing != sessions_.end()) {
            if (existing->second.instance != request.instance && is_alive(existing->second)) {
                return EnrolRefusal{"a component named '" + request.name + "' is connected already", true};
            }
            replaced = existing->second.link;
        }
    }
    if (auto status = remember(request); !status) return EnrolRefusal{status.error().message(), false};
    if (replaced) replaced->close("replaced by a newer connection");
    std::shared_ptr<ComponentLink> overtaken;
    {
        const std::lock_guard lock{mutex_};
        // Another connection of this name can have come in the meantime; it must not go on without being heard.
        const auto existing = sessions_.find(request.name);
        if (existing != sessions_.end() && existing->second.link != replaced) overtaken = existing->second.link;
        Session session;
        session.status.name = request.name;
        session.status.kind = request.kind;
        session.status.data_endpoint = request.data_endpoint;
        session.instance = request.instance;
        session.heard_ms = now_ms();
        session.link = link;
        sessions_.insert_or_assign(request.name, std::move(session));
        for (const auto& [id, call] : calls_) {
            if (call.component == request.name && !call.result) {
                link->send(id, call.command, remaining_ms(call.deadline_ms));
            }
        }
    }
    if (overtaken) overtaken->close("replaced by a newer connection");
    log_info("component_enrolled", field("name", std::string_view{request.name}) +
                                       field("kind", to_string(request.kind)) +
                                       field("endpoint", std::string_view{request.data_endpoint}));
    if (options_.on_change) options_.on_change();
    return std::nullopt;
}

std::optional<EnrolRefusal> ComponentRegistry::check(const EnrolRequest& request) const
{
    if (!options_.is_enrol_token(request.token)) return EnrolRefusal{"wrong enrolment token", false};
    if (request.protocol != wire::kProtocolVersion) {
        return EnrolRefusal{"protocol version " + std::to_string(request.protocol) + " instead of " +
                                std::to_string(wire::kProtocolVersion),
                            false};
    }
    if (!is_valid_name(request.name)) return EnrolRefusal{"'" + request.name + "' is not a valid name", false};
    if (request.kind != ComponentKind::kProcessor && request.data_endpoint.empty()) {
        return EnrolRefusal{"no data endpoint", false};
    }
    return std::nullopt;
}

Status ComponentRegistry::remember(const EnrolRequest& request)
{
    return catalog_.update([&request](Draft& draft) -> Status {
        const auto known = draft.contents().components.find(request.name);
        if (known != draft.contents().components.end() && known->second.kind != request.kind) {
            return Error{ErrorCode::kInvalid, "'" + request.name + "' is known as a " +
                                                  std::string{to_string(known->second.kind)} + " component"};
        }
        ComponentRecord record{request.name, request.kind, request.data_endpoint, request.incarnation};
        if (known != draft.contents().components.end() && known->second == record) return {};
        const bool has_lost = known != draft.contents().components.end() &&
                              request.kind == ComponentKind::kMemory &&
                              known->second.incarnation != request.incarnation;
        draft.put(std::move(record));
        if (has_lost) draft.mark_lost(request.name);
        return {};
    });
}

bool ComponentRegistry::is_alive(const Session& session) const
{
    return now_ms() < session.heard_ms + options_.heartbeat_limit_ms;
}

void ComponentRegistry::heartbeat(const ComponentLink* link, const std::string& name, const wire::Usage& usage)
{
    auto detail = Json::parse(usage.detail_json);
    const std::lock_guard lock{mutex_};
    const auto found = sessions_.find(name);
    if (found == sessions_.end() || found->second.link.get() != link) return;
    Session& session = found->second;
    session.heard_ms = now_ms();
    session.status.capacity = usage.capacity;
    session.status.used = usage.used;
    session.status.images = usage.images;
    const bool is_object = detail && detail->if_object() != nullptr;
    session.status.detail = is_object ? std::move(*detail) : Json::object();
    ++session.status.heartbeats;
}

void ComponentRegistry::result(const std::string& name, std::uint64_t id, Result<std::string> result)
{
    {
        const std::lock_guard lock{mutex_};
        const auto found = calls_.find(id);
        // A late answer, or one to somebody else's question, is of no use.
        if (found == calls_.end() || found->second.component != name || found->second.result) return;
        found->second.result = std::move(result);
    }
    answered_.notify_all();
}

void ComponentRegistry::vnode_exit(const std::shared_ptr<ComponentLink>& link, std::uint64_t sequence, VnodeExit exit)
{
    options_.on_vnode_exit(std::move(exit), [link, sequence] { link->acknowledge_exit(sequence); });
}

void ComponentRegistry::detached(const ComponentLink* link, const std::string& name)
{
    {
        const std::lock_guard lock{mutex_};
        const auto found = sessions_.find(name);
        if (found == sessions_.end() || found->second.link.get() != link) return;
        sessions_.erase(found);
    }
    log_warning("component_lost", field("name", std::string_view{name}));
    if (options_.on_change) options_.on_change();
}

std::uint64_t ComponentRegistry::heartbeat_interval_ms() const
{
    return std::clamp<std::uint64_t>(options_.heartbeat_limit_ms / 4, 100, 1000);
}

std::vector<ComponentStatus> ComponentRegistry::connected() const
{
    const std::lock_guard lock{mutex_};
    std::vector<ComponentStatus> components;
    for (const auto& [name, session] : sessions_) {
        if (is_alive(session) && session.status.heartbeats > 0) components.push_back(session.status);
    }
    return components;
}

std::optional<ComponentStatus> ComponentRegistry::find(const std::string& name) const
{
    const std::lock_guard lock{mutex_};
    const auto found = sessions_.find(name);
    if (found == sessions_.end() || !is_alive(found->second) || found->second.status.heartbeats == 0) {
        return std::nullopt;
    }
    return found->second.status;
}

Result<std::string> ComponentRegistry::call(const std::string& component, const Command& command,
                                            std::uint64_t deadline_ms)
{
    std::unique_lock lock{mutex_};
    if (shut_down_) return Error{ErrorCode::kUnavailable, "the controller is stopping"};
    const auto session = sessions_.find(component);
    if (session == sessions_.end() || !is_alive(session->second)) {
        return Error{ErrorCode::kUnavailable, "component " + component + " is not connected"};
    }
    if (calls_.size() >= kMaxCalls) return Error{ErrorCode::kNoRoom, "too many commands are under way"};
    const std::uint64_t id = next_call_++;
    calls_.emplace(id, Call{component, command, now_ms() + deadline_ms + kCallSlackMs, std::nullopt});
    session->second.link->send(id, command, deadline_ms);
    answered_.wait_for(lock, std::chrono::milliseconds{deadline_ms + kCallSlackMs},
                       [this, id] { return shut_down_ || calls_.at(id).result.has_value(); });
    const auto ended = calls_.extract(id);
    if (ended.mapped().result) {
        if (*ended.mapped().result) return *ended.mapped().result;
        return ended.mapped().result->error().in(component);
    }
    if (shut_down_) return Error{ErrorCode::kUnavailable, "the controller is stopping"};
    return Error{ErrorCode::kTimeout, component + ": no answer within " + std::to_string(deadline_ms) + " ms"};
}

void ComponentRegistry::shut_down()
{
    {
        const std::lock_guard lock{mutex_};
        shut_down_ = true;
    }
    answered_.notify_all();
}

}  // namespace splitvisor::controller
