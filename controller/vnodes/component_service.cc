#include "controller/vnodes/component_service.h"

namespace splitvisor::controller {

namespace {

/// What the controller has given away of it.
std::uint64_t allocated_bytes(const Contents& contents, const ComponentRecord& record)
{
    if (record.kind != ComponentKind::kProcessor) return contents.allocated_on(record.name).value();
    std::uint64_t sum = 0;
    for (const auto& [name, vnode] : contents.vnodes) {
        if (vnode.pcomponent == record.name) sum += vnode.excache.value();
    }
    return sum;
}

Json vnodes_on(const Contents& contents, const ComponentRecord& record)
{
    Json names = Json::array();
    for (const auto& [name, vnode] : contents.vnodes) {
        if (vnode.pcomponent == record.name) names.push(name);
    }
    return names;
}

/// VMMs that the pComponent runs and that belong to no vNode of ours.
Json strays_on(const Contents& contents, const ComponentStatus& status)
{
    Json names = Json::array();
    for (const Json& vnode : status.detail.elements("vnodes")) {
        if (!contents.vnodes.contains(vnode.text("name"))) names.push(vnode.text("name"));
    }
    return names;
}

}  // namespace

Json ComponentService::view(const Contents& contents, const ComponentRecord& record) const
{
    const auto status = hub_.find(record.name);
    Json view = Json::object();
    view.set("name", record.name)
        .set("kind", to_string(record.kind))
        .set("connected", status.has_value())
        .set("data_endpoint", record.data_endpoint.empty() ? Json{} : Json{record.data_endpoint})
        .set("capacity_bytes", status ? Json{status->capacity.value()} : Json{})
        .set("used_bytes", status ? Json{status->used.value()} : Json{})
        .set("allocated_bytes", allocated_bytes(contents, record))
        .set("detail", status ? status->detail : Json::object());
    if (record.kind == ComponentKind::kStorage) {
        view.set("images", status ? Json::array_of(status->images) : Json::array());
    }
    if (record.kind == ComponentKind::kProcessor) {
        view.set("vnodes", vnodes_on(contents, record));
        view.set("unknown_vnodes", status ? strays_on(contents, *status) : Json::array());
    }
    return view;
}

Json ComponentService::list() const
{
    return catalog_.read([this](const Contents& contents) {
        Json list = Json::array();
        for (const auto& [name, record] : contents.components) list.push(view(contents, record));
        return Json::object().set("components", std::move(list));
    });
}

Outcome<Json> ComponentService::show(const std::string& name) const
{
    return catalog_.read([this, &name](const Contents& contents) -> Outcome<Json> {
        const auto found = contents.components.find(name);
        if (found == contents.components.end()) {
            return Problem{Problem::Kind::kNotFound, "there is no component '" + name + "'", {}};
        }
        return view(contents, found->second);
    });
}

}  // namespace splitvisor::controller
