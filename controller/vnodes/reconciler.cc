#include "controller/vnodes/reconciler.h"

#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace splitvisor::controller {

namespace {

constexpr std::chrono::milliseconds kLookInterval{500};
constexpr std::uint64_t kResumedStopGraceMs = 10'000;

std::string key_of(const std::string& component, const std::string& vnode)
{
    return component + "/" + vnode;
}

}  // namespace

Reconciler::Reconciler(Catalog& catalog, ComponentHub& hub, ProcessManager& processes, VnodeService& service)
    : catalog_{catalog},
      hub_{hub},
      processes_{processes},
      service_{service},
      thread_{"reconciler", [this] { run(); }},
      stop_thread_{"reconcile-stop", [this] { run_stops(); }}
{
}

Reconciler::~Reconciler()
{
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
    stop_thread_.join();
}

void Reconciler::add_exit(VnodeExit exit, std::function<void()> heard)
{
    {
        const std::lock_guard lock{mutex_};
        if (exits_.size() >= kMaxExits) return;
        exits_.push_back({std::move(exit), std::move(heard)});
    }
    changed_.notify_all();
}

void Reconciler::wake()
{
    {
        const std::lock_guard lock{mutex_};
        awake_ = true;
    }
    changed_.notify_all();
}

void Reconciler::run()
{
    for (;;) {
        {
            std::unique_lock lock{mutex_};
            changed_.wait_for(lock, kLookInterval, [this] { return stopping_ || awake_ || !exits_.empty(); });
            if (stopping_) return;
            awake_ = false;
        }
        handle_exits();
        look();
    }
}

void Reconciler::handle_exits()
{
    std::deque<Exit> exits;
    {
        const std::lock_guard lock{mutex_};
        exits.swap(exits_);
    }
    for (const Exit& exit : exits) {
        if (auto noted = service_.note_exit(exit.exit); noted) {
            exit.heard();
        } else {
            log_error("exit_not_noted", field("vnode", std::string_view{exit.exit.name}) + field("error", noted.error()));
        }
    }
}

void Reconciler::look()
{
    const Contents contents = catalog_.read([](const Contents& now) { return now; });
    for (const ComponentStatus& component : hub_.connected()) {
        if (component.kind == ComponentKind::kProcessor) compare(component, contents);
    }
}

Reconciler::ReportedVnodes Reconciler::reported_by(const ComponentStatus& component)
{
    ReportedVnodes reported;
    for (const Json& vnode : component.detail.elements("vnodes")) {
        reported.insert_or_assign(vnode.text("name"), Reported{Epoch{vnode.number("epoch")}, vnode.text("state")});
    }
    return reported;
}

void Reconciler::compare(const ComponentStatus& component, const Contents& contents)
{
    const ReportedVnodes reported = reported_by(component);
    for (const auto& [name, record] : contents.vnodes) {
        if (record.pcomponent == component.name && !service_.claims().work_on(name)) {
            compare_vnode(component, record, reported);
        }
    }
    for (const auto& [name, vnode] : reported) {
        const auto known = contents.vnodes.find(name);
        if (known == contents.vnodes.end()) {
            note_stray(component.name, name, vnode.epoch);
        } else if (known->second.pcomponent != component.name && vnode.epoch < known->second.epoch) {
            add_stop(name, [this, component = component.name, name = name] { stop_stale(component, name); });
        }
    }
}

void Reconciler::compare_vnode(const ComponentStatus& component, const VnodeRecord& record,
                               const ReportedVnodes& reported)
{
    const auto found = reported.find(record.name);
    if (found != reported.end() && found->second.epoch == record.epoch) {
        missing_since_.erase(key_of(component.name, record.name));
        if (record.state == VnodeState::kStopping) {
            add_stop(record.name, [this, name = record.name] {
                static_cast<void>(service_.stop(name, {kResumedStopGraceMs, false}));
            });
        } else if (record.state == VnodeState::kRunning) {
            running_since_.erase(key_of(component.name, record.name));
        } else if (found->second.state == "running" &&
                   (record.state == VnodeState::kStarting || is_running_for_long(component, record))) {
            settle(record, VnodeState::kRunning, "found running");
        }
        return;
    }
    running_since_.erase(key_of(component.name, record.name));
    if (found != reported.end() && found->second.epoch < record.epoch) {
        add_stop(record.name,
                 [this, component = component.name, name = record.name] { stop_stale(component, name); });
    }
    if (record.state == VnodeState::kStopped || record.state == VnodeState::kFailed) {
        missing_since_.erase(key_of(component.name, record.name));
        return;
    }
    if (!is_missing_for_long(component, record.name)) return;
    if (record.state == VnodeState::kStopping) {
        settle(record, VnodeState::kStopped, "stopped");
    } else if (record.state == VnodeState::kStarting) {
        settle(record, VnodeState::kFailed, "the controller stopped while the vNode was being started");
    } else {
        settle(record, VnodeState::kFailed, "its pComponent does not run it any more and said nothing of its end");
    }
}

void Reconciler::stop_stale(const std::string& component, const std::string& vnode)
{
    const auto claim = service_.claims().take(vnode, "is being cleaned up");
    const auto status = hub_.find(component);
    if (!claim || !status) return;
    const ReportedVnodes reported = reported_by(*status);
    const auto found = reported.find(vnode);
    const Epoch now = catalog_.read([&vnode](const Contents& contents) {
        const auto record = contents.vnodes.find(vnode);
        return record != contents.vnodes.end() ? record->second.epoch : Epoch{};
    });
    if (found == reported.end() || found->second.epoch >= now) return;
    log_warning("stale_vnode_ended", field("component", std::string_view{component}) +
                                         field("vnode", std::string_view{vnode}));
    if (auto stopped = processes_.stop(component, vnode, 0); !stopped) {
        log_warning("vnode_not_stopped", field("vnode", std::string_view{vnode}) + field("error", stopped.error()));
    }
}

bool Reconciler::is_missing_for_long(const ComponentStatus& component, const std::string& vnode)
{
    const auto [entry, is_new] = missing_since_.try_emplace(key_of(component.name, vnode), component.heartbeats);
    // The count starts again when the component reconnects.
    if (component.heartbeats < entry->second) entry->second = component.heartbeats;
    if (component.heartbeats < entry->second + kMissingHeartbeats) return false;
    missing_since_.erase(entry);
    return true;
}

bool Reconciler::is_running_for_long(const ComponentStatus& component, const VnodeRecord& record)
{
    const std::pair now{record.epoch, component.heartbeats};
    auto& since = running_since_.try_emplace(key_of(component.name, record.name), now).first->second;
    // Another run is another matter; the count starts again when the component reconnects.
    if (since.first != now.first || now.second < since.second) since = now;
    if (now.second < since.second + kRunningHeartbeats) return false;
    running_since_.erase(key_of(component.name, record.name));
    return true;
}

void Reconciler::settle(const VnodeRecord& record, VnodeState state, const std::string& reason)
{
    const auto claim = service_.claims().take(record.name, "is being looked after");
    if (!claim) return;
    const auto updated = catalog_.update([&](Draft& draft) -> Status {
        const VnodeRecord* now = draft.vnode(record.name);
        // Something has happened since the look began: the next look decides.
        if (now == nullptr || *now != record) return {};
        VnodeRecord settled = record;
        settled.state = state;
        settled.reason = reason;
        settled.changed_s = wall_clock_s();
        draft.put(std::move(settled));
        return {};
    });
    if (!updated) {
        log_error("state_not_saved", field("error", updated.error()));
        return;
    }
    log_warning("vnode_reconciled", field("vnode", std::string_view{record.name}) + field("state", to_string(state)) +
                                        field("reason", std::string_view{reason}));
}

void Reconciler::note_stray(const std::string& component, const std::string& vnode, Epoch epoch)
{
    const auto [entry, is_new] = strays_.try_emplace(key_of(component, vnode), epoch);
    if (!is_new && entry->second == epoch) return;
    entry->second = epoch;
    log_warning("unknown_vnode_runs", field("component", std::string_view{component}) +
                                          field("vnode", std::string_view{vnode}) + field("epoch", epoch.value()));
}

void Reconciler::add_stop(const std::string& vnode, std::function<void()> stop)
{
    {
        const std::lock_guard lock{mutex_};
        stops_.try_emplace(vnode, std::move(stop));
    }
    changed_.notify_all();
}

void Reconciler::run_stops()
{
    for (;;) {
        std::function<void()> stop;
        std::string vnode;
        {
            std::unique_lock lock{mutex_};
            changed_.wait(lock, [this] { return stopping_ || !stops_.empty(); });
            if (stopping_) return;
            vnode = stops_.begin()->first;
            stop = stops_.begin()->second;
        }
        stop();
        const std::lock_guard lock{mutex_};
        stops_.erase(vnode);
    }
}

}  // namespace splitvisor::controller
