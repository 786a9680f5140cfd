#include "controller/vnodes/vnode_service.h"

#include <signal.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "controller/vnodes/view.h"

namespace splitvisor::controller {

namespace {

constexpr std::string_view kUnreachable = "its pComponent cannot be reached";

Problem no_such_vnode(const std::string& name)
{
    return {Problem::Kind::kNotFound, "there is no vNode '" + name + "'", {}};
}

bool is_at_rest(VnodeState state)
{
    return state == VnodeState::kStopped || state == VnodeState::kFailed;
}

}  // namespace

Status VnodeService::recover()
{
    return parts_.catalog.update([](Draft& draft) -> Status {
        const auto vnodes = draft.contents().vnodes;
        for (const auto& [name, vnode] : vnodes) {
            if (vnode.state != VnodeState::kCreating) continue;
            log_warning("half_created_vnode_dropped", field("vnode", std::string_view{name}));
            draft.delete_regions(vnode.regions, true);
            draft.erase_vnode(name);
        }
        return {};
    });
}

Problem VnodeService::busy(const std::string& name) const
{
    return {Problem::Kind::kBusy, "vNode '" + name + "' " + claims_.work_on(name).value_or("is being worked on"), {}};
}

Json VnodeService::view(const VnodeRecord& record) const
{
    const bool should_run = record.state == VnodeState::kRunning || record.state == VnodeState::kStarting ||
                            record.state == VnodeState::kStopping;
    if (should_run && !parts_.hub.find(record.pcomponent)) return vnode_view(record, "unknown", kUnreachable);
    return vnode_view(record, to_string(record.state), record.reason);
}

Json VnodeService::list() const
{
    const auto records = parts_.catalog.read([](const Contents& contents) { return contents.vnodes; });
    Json list = Json::array();
    for (const auto& [name, record] : records) list.push(view(record));
    return Json::object().set("vnodes", std::move(list));
}

Outcome<VnodeRecord> VnodeService::find(const std::string& name) const
{
    return parts_.catalog.read([&name](const Contents& contents) -> Outcome<VnodeRecord> {
        const auto found = contents.vnodes.find(name);
        if (found == contents.vnodes.end()) return no_such_vnode(name);
        return found->second;
    });
}

Outcome<Json> VnodeService::show(const std::string& name) const
{
    const auto record = find(name);
    if (!record) return record.problem();
    return view(*record);
}

Outcome<Json> VnodeService::create(const Json& body)
{
    const auto request = parse_vnode_request(body);
    if (!request) return request.problem();
    const std::string& name = request->record.name;
    const auto claim = claims_.take(name, "is being created");
    if (!claim) return busy(name);
    const auto reserved = reserve(*request);
    if (!reserved) return reserved.problem();
    if (const auto created = parts_.memory.create(reserved->regions, reserved->epoch); !created) {
        if (auto undone = undo_create(*reserved); !undone) return problem_of(undone.error());
        return problem_of(created.error().in("vNode '" + name + "' was not created"));
    }
    if (auto status = set_state(name, reserved->epoch, VnodeState::kStopped, "created"); !status) {
        return problem_of(status.error());
    }
    log_info("vnode_created", field("vnode", std::string_view{name}) +
                                  field("pcomponent", std::string_view{reserved->pcomponent}));
    return request->start ? start_claimed(name) : show(name);
}

Status VnodeService::undo_create(const VnodeRecord& record)
{
    const auto undone = parts_.catalog.update([&record](Draft& draft) -> Status {
        draft.delete_regions(record.regions, true);
        draft.erase_vnode(record.name);
        return {};
    });
    if (undone) parts_.reaper.work();
    return undone;
}

Outcome<VnodeRecord> VnodeService::reserve(const VnodeRequest& request)
{
    std::optional<Problem> problem;
    VnodeRecord record = request.record;
    const auto updated = parts_.catalog.update([&](Draft& draft) -> Status {
        if (draft.vnode(record.name) != nullptr) {
            problem = Problem{Problem::Kind::kExists, "there is a vNode '" + record.name + "' already", {}};
        } else {
            problem = check_volumes(draft.contents(), record);
        }
        if (!problem) problem = place(draft, record);
        if (problem) return Error{ErrorCode::kInvalid, problem->detail};
        record.epoch = draft.new_epoch();
        record.created_s = record.changed_s = wall_clock_s();
        draft.put(record);
        return {};
    });
    if (problem) return *problem;
    if (!updated) return problem_of(updated.error());
    return record;
}

std::optional<Problem> VnodeService::check_volumes(const Contents& contents, const VnodeRecord& record) const
{
    for (const DiskRecord& disk : record.disks) {
        const auto volume = contents.volumes.find(disk.volume);
        if (volume == contents.volumes.end() || !volume->second.ready) {
            return Problem{Problem::Kind::kNotFound, "there is no volume '" + disk.volume + "'", {}};
        }
        const VnodeRecord* user = contents.user_of(disk.volume);
        if (user != nullptr && user->name != record.name) {
            return Problem{Problem::Kind::kInUse,
                           "volume '" + disk.volume + "' belongs to vNode '" + user->name + "'",
                           {}};
        }
    }
    return std::nullopt;
}

std::optional<Problem> VnodeService::place(Draft& draft, VnodeRecord& record)
{
    const auto processor = place_vnode(parts_.processes.offers(draft.contents(), record.name),
                                       {record.vcpus, record.excache, record.kernel, record.initrd});
    if (!processor.chosen) {
        return Problem{Problem::Kind::kNoRoom, "no pComponent can run the vNode", to_texts(processor.rejected, "pComponent")};
    }
    const auto memory = parts_.memory.place(draft.contents(), record.memory, record.memory_copies);
    if (!memory.possible) {
        return Problem{Problem::Kind::kNoRoom, "the mComponents cannot take the vNode's memory",
                       to_texts(memory.rejected, "mComponent")};
    }
    record.pcomponent = *processor.chosen;
    record.regions = MemoryManager::make_regions(draft, memory, parts_.memory.sizes_of(record.memory));
    return std::nullopt;
}

Finished VnodeService::remove(const std::string& name)
{
    const auto claim = claims_.take(name, "is being deleted");
    if (!claim) return busy(name);
    const auto record = find(name);
    if (!record) return record.problem();
    if (!is_at_rest(record->state)) {
        return Problem{Problem::Kind::kWrongState,
                       "vNode '" + name + "' is " + std::string{to_string(record->state)} + "; stop it first",
                       {}};
    }
    const auto updated = parts_.catalog.update([&](Draft& draft) -> Status {
        draft.delete_regions(record->regions, true);
        draft.erase_vnode(name);
        return {};
    });
    if (!updated) return problem_of(updated.error());
    parts_.reaper.work();
    if (auto forgotten = parts_.processes.forget(record->pcomponent, name); !forgotten) {
        log_warning("vnode_files_stay", field("vnode", std::string_view{name}) + field("error", forgotten.error()));
    }
    log_info("vnode_deleted", field("vnode", std::string_view{name}));
    return Done{};
}

Outcome<Json> VnodeService::stats(const std::string& name)
{
    const auto component = console_of(name);
    if (!component) return component.problem();
    const auto answer = parts_.processes.control(*component, name, R"({"command":"stats"})");
    if (!answer) return problem_of(answer.error());
    auto json = Json::parse(*answer);
    if (!json) return problem_of(json.error().in("the VMM's answer"));
    if (!json->flag("ok")) return Problem{Problem::Kind::kFailed, "the VMM says: " + json->text("error"), {}};
    return *json;
}

Outcome<std::string> VnodeService::console_of(const std::string& name) const
{
    const auto record = find(name);
    if (!record) return record.problem();
    if (is_at_rest(record->state) || record->state == VnodeState::kCreating) {
        return Problem{Problem::Kind::kWrongState, "vNode '" + name + "' does not run", {}};
    }
    if (!parts_.hub.find(record->pcomponent)) {
        return Problem{Problem::Kind::kUnavailable, "pComponent " + record->pcomponent + " is not connected", {}};
    }
    return record->pcomponent;
}

Status VnodeService::set_state(const std::string& name, Epoch epoch, VnodeState state, const std::string& reason)
{
    return parts_.catalog.update([&](Draft& draft) -> Status {
        const VnodeRecord* found = draft.vnode(name);
        // A report about an earlier run, or about a vNode that is gone, changes nothing.
        if (found == nullptr || found->epoch != epoch) return {};
        VnodeRecord record = *found;
        record.state = state;
        record.reason = reason;
        record.changed_s = wall_clock_s();
        draft.put(std::move(record));
        return {};
    });
}

Status VnodeService::note_exit(const VnodeExit& exit)
{
    const auto record = find(exit.name);
    const bool concerns = record && record->epoch == exit.epoch && record->pcomponent == exit.component &&
                          !is_at_rest(record->state);
    if (!concerns) return {};
    ExitMeaning meaning = meaning_of_exit(exit.exit_status, exit.reason);
    // Whatever the status: it ended because a user wanted it.
    if (record->state == VnodeState::kStopping) meaning = {VnodeState::kStopped, "stopped"};
    log_info("vnode_ended", field("vnode", std::string_view{exit.name}) +
                                field("status", std::to_string(exit.exit_status)) +
                                field("reason", std::string_view{meaning.reason}));
    return set_state(exit.name, exit.epoch, meaning.state, meaning.reason);
}

ExitMeaning meaning_of_exit(int exit_status, const std::string& reason)
{
    const std::string said = reason.empty() ? std::string{} : ": " + reason;
    if (exit_status == 0) return {VnodeState::kStopped, "powered off by the guest"};
    if (exit_status == 3) return {VnodeState::kStopped, "reset by the guest, which is not to reboot"};
    if (exit_status == 10) return {VnodeState::kFailed, "the guest crashed" + said};
    if (exit_status == 11) return {VnodeState::kFailed, "memory lost" + said};
    if (exit_status == 12) return {VnodeState::kFailed, "fenced" + said};
    if (exit_status > 128 && exit_status < 128 + NSIG) {
        const int signal = exit_status - 128;
        return {VnodeState::kFailed,
                "vnode-vmm was ended by signal " + std::to_string(signal) + " (" + ::strsignal(signal) + ")" + said};
    }
    if (exit_status < 0) return {VnodeState::kFailed, "vnode-vmm has ended" + said};
    return {VnodeState::kFailed, "vnode-vmm exited with status " + std::to_string(exit_status) + said};
}

}  // namespace splitvisor::controller
