#include "controller/api/api.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace splitvisor::controller {

namespace {

/// A route's outcome from a service's outcome.
Outcome<Reply> reply_with(Outcome<Json> outcome, int status = 200)
{
    if (!outcome) return outcome.problem();
    return Reply{status, std::move(*outcome)};
}

Outcome<Reply> reply_empty(const Finished& finished)
{
    if (!finished) return finished.problem();
    return Reply{204, {}};
}

}  // namespace

Api::Api(Parts parts) : parts_{parts}
{
    add_general_routes();
    add_vnode_routes();
    add_volume_routes();
}

void Api::add_general_routes()
{
    routes_.push_back({"GET", "/healthz", false, false, [](const Call&) -> Outcome<Reply> {
                           return Reply{200, Json::object().set("status", "ok")};
                       }});
    routes_.push_back({"GET", "/v1/version", true, false, [](const Call&) -> Outcome<Reply> {
                           return Reply{200, Json::object().set("version", SPLITVISOR_VERSION).set("api", "v1")};
                       }});
    routes_.push_back({"GET", "/v1/components", true, false,
                       [this](const Call&) -> Outcome<Reply> { return reply_with(parts_.components.list()); }});
    routes_.push_back({"GET", "/v1/components/{name}", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_with(parts_.components.show(call.name()));
                       }});
}

void Api::add_vnode_routes()
{
    routes_.push_back({"GET", "/v1/vnodes", true, false,
                       [this](const Call&) -> Outcome<Reply> { return reply_with(parts_.vnodes.list()); }});
    routes_.push_back({"POST", "/v1/vnodes", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_with(parts_.vnodes.create(call.body), 201);
                       }});
    routes_.push_back({"GET", "/v1/vnodes/{name}", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_with(parts_.vnodes.show(call.name()));
                       }});
    routes_.push_back({"DELETE", "/v1/vnodes/{name}", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_empty(parts_.vnodes.remove(call.name()));
                       }});
    routes_.push_back({"POST", "/v1/vnodes/{name}/start", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_with(parts_.vnodes.start(call.name()));
                       }});
    routes_.push_back({"POST", "/v1/vnodes/{name}/stop", true, false, [this](const Call& call) -> Outcome<Reply> {
                           const auto request = parse_stop_request(call.body);
                           if (!request) return request.problem();
                           return reply_with(parts_.vnodes.stop(call.name(), *request));
                       }});
    routes_.push_back({"GET", "/v1/vnodes/{name}/stats", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_with(parts_.vnodes.stats(call.name()));
                       }});
    routes_.push_back({"GET", "/v1/vnodes/{name}/console", true, true, [](const Call&) -> Outcome<Reply> {
                           return Problem{Problem::Kind::kBadRequest, "the console is a WebSocket", {}};
                       }});
}

void Api::add_volume_routes()
{
    routes_.push_back({"GET", "/v1/volumes", true, false,
                       [this](const Call&) -> Outcome<Reply> { return reply_with(parts_.volumes.list()); }});
    routes_.push_back({"POST", "/v1/volumes", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_with(parts_.volumes.create(call.body), 201);
                       }});
    routes_.push_back({"GET", "/v1/volumes/{name}", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_with(parts_.volumes.show(call.name()));
                       }});
    routes_.push_back({"DELETE", "/v1/volumes/{name}", true, false, [this](const Call& call) -> Outcome<Reply> {
                           return reply_empty(parts_.volumes.remove(call.name()));
                       }});
}

bool Api::is_authorized(const HttpRequest& request) const
{
    constexpr std::string_view kScheme = "Bearer ";
    const std::string_view given = request.authorization;
    return given.starts_with(kScheme) && parts_.admin.matches(given.substr(kScheme.size()));
}

Outcome<Api::Found> Api::find(const HttpRequest& request) const
{
    bool is_path = false;
    for (const Route& route : routes_) {
        auto parts = match(route.pattern, request.path);
        if (!parts) continue;
        is_path = true;
        if (route.method != request.method) continue;
        if (route.needs_token && !is_authorized(request)) {
            return Problem{Problem::Kind::kUnauthorized, "the request has no valid token", {}};
        }
        return Found{&route, {std::move(*parts), {}}};
    }
    // What exists is nobody's business without a token.
    if (!is_authorized(request)) return Problem{Problem::Kind::kUnauthorized, "the request has no valid token", {}};
    if (is_path) return Problem{Problem::Kind::kMethod, request.path + " does not know " + request.method, {}};
    return Problem{Problem::Kind::kNotFound, "there is no " + request.path, {}};
}

/// RFC 9110, section 15.5.6: a 405 says what is allowed.
HttpResponse Api::refusal(const HttpRequest& request, const Problem& problem) const
{
    HttpResponse response = to_response(problem);
    if (problem.kind != Problem::Kind::kMethod) return response;
    std::string methods;
    for (const Route& route : routes_) {
        if (match(route.pattern, request.path)) methods += (methods.empty() ? "" : ", ") + route.method;
    }
    response.headers.emplace_back("Allow", std::move(methods));
    return response;
}

HttpResponse Api::handle(const HttpRequest& request)
{
    auto found = find(request);
    if (!found) return refusal(request, found.problem());
    if (!request.body.empty()) {
        auto body = Json::parse(request.body);
        if (!body) return to_response(Problem{Problem::Kind::kBadRequest, "the body is " + body.error().message(), {}});
        found->call.body = std::move(*body);
    }
    const auto reply = found->route->handler(found->call);
    if (reply) return to_response(*reply);
    if (reply.problem().kind == Problem::Kind::kFailed) {
        log_error("request_failed", field("method", std::string_view{request.method}) +
                                        field("path", std::string_view{request.path}) +
                                        field("detail", std::string_view{reply.problem().detail}));
    }
    return to_response(reply.problem());
}

std::variant<std::shared_ptr<BytePipe>, HttpResponse> Api::upgrade(const HttpRequest& request)
{
    const auto found = find(request);
    if (!found) return refusal(request, found.problem());
    if (!found->route->is_websocket) {
        return to_response(Problem{Problem::Kind::kBadRequest, request.path + " is no WebSocket", {}});
    }
    const std::string& name = found->call.name();
    const auto component = parts_.vnodes.console_of(name);
    if (!component) return to_response(component.problem());
    auto pipe = parts_.consoles.open(parts_.hub, *component, name);
    if (!pipe) return to_response(problem_of(pipe.error().in("the console was not opened")));
    return *pipe;
}

}  // namespace splitvisor::controller
