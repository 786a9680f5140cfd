// Starting and stopping: the part of VnodeService in which several components must agree.

#include <utility>

#include "base/log.h"
#include "controller/vnodes/view.h"
#include "controller/vnodes/vnode_service.h"

namespace splitvisor::controller {

namespace {

Problem wrong_state(const VnodeRecord& record, const std::string& more)
{
    return {Problem::Kind::kWrongState,
            "vNode '" + record.name + "' is " + std::string{to_string(record.state)} + more,
            {}};
}

}  // namespace

Outcome<Json> VnodeService::start(const std::string& name)
{
    const auto claim = claims_.take(name, "is being started");
    if (!claim) return busy(name);
    return start_claimed(name);
}

Outcome<Json> VnodeService::start_claimed(const std::string& name)
{
    const auto prepared = prepare_start(name);
    if (!prepared) return prepared.problem();
    if (const auto started = run_start(*prepared); !started) {
        const std::string reason = "not started: " + started.error().message();
        log_warning("vnode_not_started", field("vnode", std::string_view{name}) + field("error", started.error()));
        // It may run all the same, when only the answer did not arrive.
        if (started.error().code() == ErrorCode::kTimeout) {
            if (auto stopped = parts_.processes.stop(prepared->pcomponent, name, 0); !stopped) {
                log_warning("vnode_not_stopped", field("vnode", std::string_view{name}) + field("error", stopped.error()));
            }
        }
        if (auto set = set_state(name, prepared->epoch, VnodeState::kFailed, reason); !set) {
            return problem_of(set.error());
        }
        return problem_of(started.error().in("vNode '" + name + "' was not started"));
    }
    const auto settled = parts_.catalog.update([&](Draft& draft) -> Status {
        const VnodeRecord* found = draft.vnode(name);
        // The VMM can have ended between its start and now; its report has then moved the state on.
        if (found == nullptr || found->epoch != prepared->epoch || found->state != VnodeState::kStarting) return {};
        VnodeRecord record = *found;
        record.state = VnodeState::kRunning;
        record.reason = "started";
        record.changed_s = wall_clock_s();
        draft.put(std::move(record));
        return {};
    });
    if (!settled) return problem_of(settled.error());
    log_info("vnode_started", field("vnode", std::string_view{name}) + field("epoch", prepared->epoch.value()) +
                                  field("pcomponent", std::string_view{prepared->pcomponent}));
    return show(name);
}

/// Checks, and writes down the new run: a new epoch, and vRegions with fresh ids and capabilities, so that nothing of
/// an earlier run can be read or written by anyone.
Outcome<VnodeRecord> VnodeService::prepare_start(const std::string& name)
{
    std::optional<Problem> problem;
    VnodeRecord record;
    const auto updated = parts_.catalog.update([&](Draft& draft) -> Status {
        if (const VnodeRecord* found = draft.vnode(name)) {
            record = *found;
            problem = check_start(draft.contents(), record);
            if (!problem) problem = place_again(draft, record);
        } else {
            problem = Problem{Problem::Kind::kNotFound, "there is no vNode '" + name + "'", {}};
        }
        if (problem) return Error{ErrorCode::kInvalid, problem->detail};
        record.epoch = draft.new_epoch();
        record.state = VnodeState::kStarting;
        record.reason.clear();
        record.changed_s = wall_clock_s();
        draft.put(record);
        return {};
    });
    if (problem) return *problem;
    if (!updated) return problem_of(updated.error());
    return record;
}

std::optional<Problem> VnodeService::check_start(const Contents& contents, const VnodeRecord& record) const
{
    if (record.state != VnodeState::kStopped && record.state != VnodeState::kFailed) {
        return wrong_state(record, " already");
    }
    for (const DiskRecord& disk : record.disks) {
        const auto volume = contents.volumes.find(disk.volume);
        if (volume == contents.volumes.end()) {
            return Problem{Problem::Kind::kNotFound, "there is no volume '" + disk.volume + "'", {}};
        }
        if (!parts_.hub.find(volume->second.component)) {
            return Problem{Problem::Kind::kUnavailable,
                           "sComponent " + volume->second.component + " with volume '" + disk.volume +
                               "' is not connected",
                           {}};
        }
    }
    return std::nullopt;
}

std::optional<Problem> VnodeService::place_again(Draft& draft, VnodeRecord& record)
{
    if (!parts_.hub.find(record.pcomponent)) {
        const auto processor = place_vnode(parts_.processes.offers(draft.contents(), record.name),
                                           {record.vcpus, record.excache, record.kernel, record.initrd});
        if (!processor.chosen) {
            return Problem{Problem::Kind::kNoRoom,
                           "pComponent " + record.pcomponent + " is not connected, and no other can run the vNode",
                           to_texts(processor.rejected, "pComponent")};
        }
        record.pcomponent = *processor.chosen;
    }
    const auto memory = parts_.memory.place_again(draft.contents(), record);
    if (!memory.possible) {
        return Problem{Problem::Kind::kNoRoom, "an mComponent of the vNode is away, and no other can take its part",
                       to_texts(memory.rejected, "mComponent")};
    }
    std::vector<ByteCount> sizes;
    for (const RegionRecord& region : record.regions) sizes.push_back(region.size);
    // The old vRegions' room is the new ones', except where their mComponent is away and others take their part.
    for (const RegionRecord& region : record.regions) {
        for (const ReplicaRecord& replica : region.replicas) {
            draft.delete_regions({RegionRecord{region.size, {replica}}}, !parts_.hub.find(replica.component));
        }
    }
    record.regions = MemoryManager::make_regions(draft, memory, sizes);
    return std::nullopt;
}

Status VnodeService::set_volume_epochs(const VnodeRecord& record)
{
    const auto volumes = parts_.catalog.read([](const Contents& contents) { return contents.volumes; });
    for (const DiskRecord& disk : record.disks) {
        const auto volume = volumes.find(disk.volume);
        if (volume == volumes.end()) return Error{ErrorCode::kNotFound, "volume '" + disk.volume + "' is gone"};
        SPLITVISOR_TRY(parts_.storage.set_epoch(volume->second, record.epoch));
    }
    return {};
}

Status VnodeService::run_start(const VnodeRecord& record)
{
    parts_.reaper.work();
    SPLITVISOR_TRY(parts_.memory.create(record.regions, record.epoch));
    SPLITVISOR_TRY(set_volume_epochs(record));
    const Json spec = parts_.catalog.read([&record](const Contents& contents) { return vmm_spec(contents, record); });
    return parts_.processes.start(record.pcomponent, record.name, spec.dump());
}

Outcome<Json> VnodeService::stop(const std::string& name, const StopRequest& request)
{
    const auto claim = claims_.take(name, "is being stopped");
    if (!claim) return busy(name);
    const auto record = find(name);
    if (!record) return record.problem();
    if (record->state != VnodeState::kRunning && record->state != VnodeState::kStarting &&
        record->state != VnodeState::kStopping) {
        return wrong_state(*record, "");
    }
    if (!parts_.hub.find(record->pcomponent)) {
        if (request.force) return fence(name);
        return Problem{Problem::Kind::kUnavailable,
                       "pComponent " + record->pcomponent + " is not connected; a forced stop fences the vNode off",
                       {}};
    }
    if (auto status = set_state(name, record->epoch, VnodeState::kStopping, "a user stops it"); !status) {
        return problem_of(status.error());
    }
    const auto stopped = parts_.processes.stop(record->pcomponent, name, request.force ? 0 : request.grace_ms);
    const bool is_gone = stopped.ok() || stopped.error().code() == ErrorCode::kNotFound;
    const auto set = is_gone ? set_state(name, record->epoch, VnodeState::kStopped, "stopped")
                             : undo_stop(*record, "not stopped: " + stopped.error().message());
    if (!set) return problem_of(set.error());
    if (!is_gone) return problem_of(stopped.error().in("vNode '" + name + "' was not stopped"));
    log_info("vnode_stopped", field("vnode", std::string_view{name}));
    return show(name);
}

/// The stop has failed: the vNode is what it was before, unless the report of its end came meanwhile.
Status VnodeService::undo_stop(const VnodeRecord& before, const std::string& reason)
{
    return parts_.catalog.update([&](Draft& draft) -> Status {
        const VnodeRecord* found = draft.vnode(before.name);
        if (found == nullptr || found->epoch != before.epoch || found->state != VnodeState::kStopping) return {};
        VnodeRecord record = *found;
        record.state = before.state;
        record.reason = reason;
        record.changed_s = wall_clock_s();
        draft.put(std::move(record));
        return {};
    });
}

/// Takes a vNode from a pComponent that cannot be reached: raises the epoch on its volumes and deletes its vRegions, so
/// that the VMM, should it still run, can change nothing any more.
Outcome<Json> VnodeService::fence(const std::string& name)
{
    VnodeRecord record;
    const auto updated = parts_.catalog.update([&](Draft& draft) -> Status {
        record = *draft.vnode(name);
        record.epoch = draft.new_epoch();
        draft.put(record);
        return {};
    });
    if (!updated) return problem_of(updated.error());
    if (auto fenced = set_volume_epochs(record); !fenced) {
        return problem_of(fenced.error().in("vNode '" + name + "' was not fenced off"));
    }
    const auto settled = parts_.catalog.update([&](Draft& draft) -> Status {
        record.state = VnodeState::kStopped;
        record.reason = "fenced off while pComponent " + record.pcomponent + " could not be reached";
        record.changed_s = wall_clock_s();
        draft.delete_regions(record.regions, false);
        std::vector<RegionRecord> fresh = record.regions;
        for (RegionRecord& region : fresh) {
            for (ReplicaRecord& replica : region.replicas) {
                replica = {replica.component, RegionId{draft.new_id()}, new_capability(), false};
            }
        }
        record.regions = std::move(fresh);
        draft.put(record);
        return {};
    });
    if (!settled) return problem_of(settled.error());
    parts_.reaper.work();
    log_warning("vnode_fenced", field("vnode", std::string_view{name}));
    return show(name);
}

}  // namespace splitvisor::controller
