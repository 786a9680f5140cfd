// describe-api: prints as JSON the routes of the REST API and, for most of them, an answer, for
// check_openapi.py.

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "tests/unit/controller/world.h"

namespace splitvisor::controller {
namespace {

struct Sample {
    std::string method;
    std::string pattern;
    std::string path;
    Json body;
};

std::vector<Sample> samples()
{
    const Json vnode = World::vnode_body("web")
                           .set("initrd", "initrd")
                           .set("volumes", Json::Array{Json::object().set("name", "root")})
                           .set("nets", Json::Array{Json::object().set("tap", "tap0")})
                           .set("start", true);
    return {
        {"GET", "/healthz", "/healthz", {}},
        {"GET", "/v1/version", "/v1/version", {}},
        {"POST", "/v1/volumes", "/v1/volumes", World::volume_body("root").set("image", "debian")},
        {"POST", "/v1/volumes", "/v1/volumes", World::volume_body("root")},
        {"POST", "/v1/volumes", "/v1/volumes", World::volume_body("spare", "16777216B")},
        {"POST", "/v1/volumes", "/v1/volumes", Json{1}},
        {"POST", "/v1/vnodes", "/v1/vnodes", vnode},
        {"POST", "/v1/vnodes", "/v1/vnodes", World::vnode_body("none", "4T")},
        {"GET", "/v1/components", "/v1/components", {}},
        {"GET", "/v1/components/{name}", "/v1/components/m1", {}},
        {"GET", "/v1/components/{name}", "/v1/components/m9", {}},
        {"GET", "/v1/vnodes", "/v1/vnodes", {}},
        {"GET", "/v1/vnodes/{name}", "/v1/vnodes/web", {}},
        {"GET", "/v1/vnodes/{name}/stats", "/v1/vnodes/web/stats", {}},
        {"GET", "/v1/vnodes/{name}/console", "/v1/vnodes/web/console", {}},
        {"GET", "/v1/volumes", "/v1/volumes", {}},
        {"GET", "/v1/volumes/{name}", "/v1/volumes/spare", {}},
        {"DELETE", "/v1/volumes/{name}", "/v1/volumes/root", {}},
        {"DELETE", "/v1/volumes/{name}", "/v1/volumes/spare", {}},
        {"DELETE", "/v1/vnodes/{name}", "/v1/vnodes/web", {}},
        {"POST", "/v1/vnodes/{name}/stop", "/v1/vnodes/web/stop", Json::object().set("grace_ms", 1)},
        {"POST", "/v1/vnodes/{name}/start", "/v1/vnodes/web/start", {}},
        {"POST", "/v1/vnodes/{name}/start", "/v1/vnodes/web/start", {}},
        {"POST", "/v1/vnodes/{name}/stop", "/v1/vnodes/web/stop", {}},
        {"DELETE", "/v1/vnodes/{name}", "/v1/vnodes/web", {}},
    };
}

Json ask(World& world, const Sample& sample, const std::string& authorization)
{
    const std::string body = sample.body.is_null() ? std::string{} : sample.body.dump();
    const auto response = world.api().handle({sample.method, sample.path, authorization, body});
    Json answer = Json::object();
    answer.set("method", sample.method).set("pattern", sample.pattern).set("status", response.status);
    answer.set("content_type", response.content_type).set("request", sample.body);
    auto json = Json::parse(response.body);
    answer.set("body", json ? std::move(*json) : Json{});
    return answer;
}

Json describe()
{
    World world;
    world.add_usual();
    Json routes = Json::array();
    for (const Route& route : world.api().routes()) {
        routes.push(Json::object()
                        .set("method", route.method)
                        .set("pattern", route.pattern)
                        .set("needs_token", route.needs_token)
                        .set("is_websocket", route.is_websocket));
    }
    Json answers = Json::array();
    for (const Sample& sample : samples()) {
        if (sample.path != "/healthz") answers.push(ask(world, sample, "Bearer wrong"));
        answers.push(ask(world, sample, "Bearer " + world.token()));
    }
    return Json::object().set("routes", std::move(routes)).set("answers", std::move(answers));
}

}  // namespace
}  // namespace splitvisor::controller

int main()
{
    splitvisor::start_log("describe-api");
    std::puts(splitvisor::controller::describe().pretty().c_str());
    return 0;
}
