#include "controller/vnodes/volume_service.h"

#include <optional>
#include <utility>

#include "base/log.h"
#include "controller/vnodes/requests.h"
#include "controller/vnodes/view.h"

namespace splitvisor::controller {

namespace {

Problem no_such_volume(const std::string& name)
{
    return {Problem::Kind::kNotFound, "there is no volume '" + name + "'", {}};
}

/// The volume is gone for users; its place on the sComponent is deleted when that is possible.
void drop(Draft& draft, const VolumeRecord& volume)
{
    draft.put(
        DeletionRecord{volume.id.value(), DeletionRecord::What::kVolume, volume.component, volume.size});
    draft.erase_volume(volume.name);
}

}  // namespace

Status VolumeService::recover()
{
    return catalog_.update([](Draft& draft) -> Status {
        const auto volumes = draft.contents().volumes;
        for (const auto& [name, volume] : volumes) {
            if (volume.ready) continue;
            log_warning("half_created_volume_dropped", field("volume", std::string_view{name}));
            drop(draft, volume);
        }
        return {};
    });
}

Json VolumeService::view(const Contents& contents, const VolumeRecord& volume) const
{
    const VnodeRecord* user = contents.user_of(volume.name);
    return Json::object()
        .set("name", volume.name)
        .set("size_bytes", volume.size.value())
        .set("image", volume.image.empty() ? Json{} : Json{volume.image})
        .set("component", volume.component)
        .set("state", !volume.ready ? "creating" : hub_.find(volume.component) ? "available" : "unreachable")
        .set("attached_to", user != nullptr ? Json{user->name} : Json{})
        .set("created", utc_text(volume.created_s));
}

Json VolumeService::list() const
{
    return catalog_.read([this](const Contents& contents) {
        Json list = Json::array();
        for (const auto& [name, volume] : contents.volumes) list.push(view(contents, volume));
        return Json::object().set("volumes", std::move(list));
    });
}

Outcome<Json> VolumeService::show(const std::string& name) const
{
    return catalog_.read([this, &name](const Contents& contents) -> Outcome<Json> {
        const auto found = contents.volumes.find(name);
        if (found == contents.volumes.end()) return no_such_volume(name);
        return view(contents, found->second);
    });
}

Outcome<VolumeRecord> VolumeService::reserve(VolumeRecord record)
{
    std::optional<Problem> problem;
    const auto updated = catalog_.update([&](Draft& draft) -> Status {
        if (draft.volume(record.name) != nullptr) {
            problem = Problem{Problem::Kind::kExists, "there is a volume '" + record.name + "' already", {}};
            return {};
        }
        const auto placement = place_volume(storage_.offers(draft.contents()), record.size, record.image);
        if (!placement.chosen) {
            problem = Problem{Problem::Kind::kNoRoom, "no sComponent can take the volume",
                              to_texts(placement.rejected, "sComponent")};
            return {};
        }
        record.component = *placement.chosen;
        record.id = VolumeId{draft.new_id()};
        record.capability = new_capability();
        record.created_s = wall_clock_s();
        draft.put(record);
        return {};
    });
    if (!updated) return problem_of(updated.error());
    if (problem) return *problem;
    return record;
}

Outcome<Json> VolumeService::create(const Json& body)
{
    auto request = parse_volume_request(body);
    if (!request) return request.problem();
    const auto images = storage_.images();
    if (!request->image.empty() && !images.contains(request->image)) {
        Problem problem{Problem::Kind::kNotFound, "no connected sComponent has an image '" + request->image + "'", {}};
        for (const std::string& image : images) problem.reasons.push_back("available: " + image);
        if (images.empty()) problem.reasons.emplace_back("no image is available");
        return problem;
    }
    auto reserved = reserve(std::move(*request));
    if (!reserved) return reserved.problem();
    const Status created = storage_.create(*reserved);
    const auto settled = catalog_.update([&](Draft& draft) -> Status {
        VolumeRecord volume = *reserved;
        if (!created) {
            drop(draft, volume);
        } else {
            volume.ready = true;
            draft.put(std::move(volume));
        }
        return {};
    });
    if (!settled) return problem_of(settled.error());
    if (!created) {
        reaper_.work();
        return problem_of(created.error().in("volume '" + reserved->name + "' was not created"));
    }
    return show(reserved->name);
}

Finished VolumeService::remove(const std::string& name)
{
    std::optional<Problem> problem;
    const auto updated = catalog_.update([&](Draft& draft) -> Status {
        const VolumeRecord* volume = draft.volume(name);
        if (volume == nullptr) {
            problem = no_such_volume(name);
        } else if (const VnodeRecord* user = draft.contents().user_of(name)) {
            problem = Problem{Problem::Kind::kInUse, "volume '" + name + "' belongs to vNode '" + user->name + "'", {}};
        } else if (!volume->ready) {
            problem = Problem{Problem::Kind::kBusy, "volume '" + name + "' is being created", {}};
        } else {
            drop(draft, VolumeRecord{*volume});
        }
        return {};
    });
    if (!updated) return problem_of(updated.error());
    if (problem) return *problem;
    reaper_.work();
    return Done{};
}

}  // namespace splitvisor::controller
