#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "controller/components/component_hub.h"
#include "controller/model/catalog.h"

namespace splitvisor::controller {

/// The way to one connected component. Implemented by the control server. Thread-safe, never blocks.
class ComponentLink {
  public:
    virtual ~ComponentLink() = default;
    virtual void send(std::uint64_t id, const Command& command, std::uint64_t deadline_ms) = 0;
    virtual void acknowledge_exit(std::uint64_t sequence) = 0;
    /// Ends the connection.
    virtual void close(const std::string& reason) = 0;
};

struct EnrolRequest {
    std::string token;
    std::string name;
    ComponentKind kind = ComponentKind::kMemory;
    std::string data_endpoint;
    std::uint64_t incarnation = 0;
    std::uint64_t instance = 0;
    std::uint32_t protocol = 0;
};

struct EnrolRefusal {
    std::string reason;
    bool retry = false;  ///< the same request may be accepted a little later
};

/// A VMM that ended by itself, as its pComponent tells it.
struct VnodeExit {
    std::string component;
    std::string name;
    Epoch epoch;
    int exit_status = 0;  ///< as from a shell; -1: not known
    std::string reason;
};

struct RegistryOptions {
    std::uint64_t heartbeat_limit_ms = 5000;
    /// True for the enrolment token.
    std::function<bool(const std::string& token)> is_enrol_token;
    /// A VMM ended; `heard` is called when this is durable.
    std::function<void(VnodeExit exit, std::function<void()> heard)> on_vnode_exit;
    /// Something about the components has changed that the reconciler may want to look at.
    std::function<void()> on_change;
};

/// Who is connected, what they said last, and which commands they have not yet answered. Knows no transport.
/// Thread-safe.
class ComponentRegistry final : public ComponentHub {
  public:
    ComponentRegistry(Catalog& catalog, RegistryOptions options);

    // The control server's side.
    /// Nothing: the component is enrolled and may be sent commands through the link from now on.
    [[nodiscard]] std::optional<EnrolRefusal> enrol(const EnrolRequest& request, std::shared_ptr<ComponentLink> link);
    void heartbeat(const ComponentLink* link, const std::string& name, const wire::Usage& usage);
    void result(const std::string& name, std::uint64_t id, Result<std::string> result);
    void vnode_exit(const std::shared_ptr<ComponentLink>& link, std::uint64_t sequence, VnodeExit exit);
    void detached(const ComponentLink* link, const std::string& name);
    [[nodiscard]] std::uint64_t heartbeat_interval_ms() const;

    // The managers' side.
    [[nodiscard]] std::vector<ComponentStatus> connected() const override;
    [[nodiscard]] std::optional<ComponentStatus> find(const std::string& name) const override;
    [[nodiscard]] Result<std::string> call(const std::string& component, const Command& command,
                                           std::uint64_t deadline_ms) override;
    /// Makes all calls that wait return kUnavailable, and all further ones.
    void shut_down();

  private:
    struct Session {
        ComponentStatus status;
        std::uint64_t instance = 0;
        std::uint64_t heard_ms = 0;
        std::shared_ptr<ComponentLink> link;
    };
    struct Call {
        std::string component;
        Command command;
        std::uint64_t deadline_ms = 0;  ///< on the monotonic clock
        std::optional<Result<std::string>> result;
    };

    [[nodiscard]] std::optional<EnrolRefusal> check(const EnrolRequest& request) const;
    [[nodiscard]] Status remember(const EnrolRequest& request);
    [[nodiscard]] bool is_alive(const Session& session) const;

    Catalog& catalog_;
    const RegistryOptions options_;
    mutable std::mutex mutex_;
    std::condition_variable answered_;
    std::map<std::string, Session> sessions_;
    std::map<std::uint64_t, Call> calls_;
    std::uint64_t next_call_;
    bool shut_down_ = false;
};

}  // namespace splitvisor::controller
