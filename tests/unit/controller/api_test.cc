#include "controller/api/api.h"

#include "tests/unit/controller/checks.h"
#include "tests/unit/controller/world.h"

namespace splitvisor::controller {

namespace {

/// Asks the API as an HTTP server would.
class Asker {
  public:
    explicit Asker(World& world) : world_{world}, authorization_{"Bearer " + world.token()} {}

    HttpResponse ask(const std::string& method, const std::string& path, const std::string& body = {})
    {
        return world_.api().handle({method, path, authorization_, body});
    }
    int status(const std::string& method, const std::string& path, const std::string& body = {})
    {
        return ask(method, path, body).status;
    }
    Json problem(const std::string& method, const std::string& path, const std::string& body = {})
    {
        const HttpResponse response = ask(method, path, body);
        BOOST_TEST(response.content_type == "application/problem+json");
        auto json = Json::parse(response.body);
        require_ok(json);
        BOOST_TEST(json->number("status") == static_cast<std::uint64_t>(response.status));
        BOOST_TEST(!json->text("title").empty());
        BOOST_TEST(!json->text("detail").empty());
        BOOST_TEST(json->find("reasons")->if_array() != nullptr);
        return std::move(*json);
    }

  private:
    World& world_;
    const std::string authorization_;
};

std::string header_of(const HttpResponse& response, const std::string& name)
{
    for (const auto& [key, value] : response.headers) {
        if (key == name) return value;
    }
    return {};
}

class FakeEnd final : public ByteEnd {
  public:
    void deliver(std::string bytes, std::function<void()> taken) override
    {
        got += bytes;
        taken();
    }
    void close(const std::string& reason) override { closed = reason; }
    std::string got;
    std::string closed;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(api)

BOOST_AUTO_TEST_CASE(patterns_match_whole_paths)
{
    BOOST_TEST(match("/v1/vnodes", "/v1/vnodes").has_value());
    BOOST_TEST(match("/v1/vnodes/{name}", "/v1/vnodes/web")->at("name") == "web");
    BOOST_TEST(match("/v1/vnodes/{name}/start", "/v1/vnodes/start/start")->at("name") == "start");
    for (const std::string path :
         {"", "/", "v1/vnodes/web", "/v1/vnodes", "/v1/vnodes/", "/v1/vnodes//", "/v1//web",
          "/v1/vnodes/web/", "/v1/vnodes/web/start", "//v1/vnodes/web", "/v1/vnodes/web//"}) {
        BOOST_TEST(!match("/v1/vnodes/{name}", path).has_value(), path);
    }
}

BOOST_AUTO_TEST_CASE(without_a_token_nothing_is_told)
{
    World world;
    world.add_usual();
    const std::string token = world.token();
    for (const std::string& wrong :
         {std::string{}, std::string{"Bearer"}, std::string{"Bearer "}, token, "bearer " + token,
          "Basic " + token, "Bearer  " + token, "Bearer " + token + " ", "Bearer " + token.substr(1),
          "Bearer " + std::string(100'000, 'a')}) {
        for (const std::string path :
             {"/v1/vnodes", "/v1/vnodes/none", "/v1/nothing", "/", "/healthz/more"}) {
            const auto response = world.api().handle({"GET", path, wrong, {}});
            BOOST_TEST(response.status == 401, path << " with " << wrong.substr(0, 80));
            BOOST_TEST(header_of(response, "WWW-Authenticate") == "Bearer");
        }
        BOOST_TEST(world.api().handle({"POST", "/v1/vnodes", wrong, "{"}).status == 401);
        BOOST_TEST(world.api().handle({"PATCH", "/v1/vnodes", wrong, {}}).status == 401);
        BOOST_TEST(world.api().handle({"GET", "/healthz", wrong, {}}).status == 200);
    }
    BOOST_TEST(world.api().handle({"GET", "/v1/vnodes", "Bearer " + token, {}}).status == 200);
}

BOOST_AUTO_TEST_CASE(every_refusal_has_its_status)
{
    World world;
    world.add_usual();
    Asker asker{world};
    BOOST_TEST(asker.status("GET", "/v1/nothing") == 404);
    BOOST_TEST(asker.status("GET", "/v1/vnodes/") == 404);
    BOOST_TEST(asker.status("GET", "/v1/vnodes/none") == 404);
    BOOST_TEST(asker.status("GET", "/v1/vnodes/%6eone") == 404);
    BOOST_TEST(asker.status("DELETE", "/v1/volumes/none") == 404);
    BOOST_TEST(asker.status("GET", "/v1/components/none") == 404);
    BOOST_TEST(asker.status("POST", "/v1/vnodes/none/start") == 404);
    const auto method = asker.ask("PUT", "/v1/vnodes");
    BOOST_TEST(method.status == 405);
    BOOST_TEST(header_of(method, "Allow") == "GET, POST");
    BOOST_TEST(header_of(asker.ask("GET", "/v1/vnodes/a/start"), "Allow") == "POST");
    BOOST_TEST(asker.status("POST", "/v1/vnodes", "{") == 400);
    BOOST_TEST(asker.status("POST", "/v1/vnodes", "") == 400);
    BOOST_TEST(asker.status("POST", "/v1/vnodes", "[]") == 400);
    BOOST_TEST(asker.status("POST", "/v1/vnodes", std::string(100'000, '[')) == 400);
    BOOST_TEST(asker.status("GET", "/v1/vnodes/none/console") == 400, "it is a WebSocket");
    const std::string body = World::vnode_body("web").dump();
    BOOST_TEST(asker.status("POST", "/v1/vnodes", body) == 201);
    BOOST_TEST(asker.status("POST", "/v1/vnodes", body) == 409);
    BOOST_TEST(asker.status("GET", "/v1/vnodes/web/stats") == 409);
    BOOST_TEST(asker.status("POST", "/v1/vnodes/web/stop", R"({"grace":1})") == 400);
    const auto deleted = asker.ask("DELETE", "/v1/vnodes/web");
    BOOST_TEST(deleted.status == 204);
    BOOST_TEST(deleted.body.empty());
}

BOOST_AUTO_TEST_CASE(problems_are_for_programs_and_people)
{
    World world;
    world.add_usual();
    Asker asker{world};
    const Json room = asker.problem("POST", "/v1/vnodes", World::vnode_body("web", "2G").dump());
    BOOST_TEST(room.text("type") == "urn:splitvisor:problem:no-room");
    BOOST_TEST(room.text("detail") == "the mComponents cannot take the vNode's memory");
    BOOST_TEST(room.texts("reasons").size() == 1u);
    BOOST_TEST(asker.problem("POST", "/v1/volumes", "7").text("type") ==
               "urn:splitvisor:problem:bad-request");
    BOOST_TEST(asker.problem("PUT", "/v1/volumes").text("detail") == "/v1/volumes does not know PUT");
    const Json echo = asker.problem("GET", "/v1/vnodes/\"\x01\xff<");
    BOOST_TEST(contains(echo.text("detail"), "there is no vNode"));
    const auto created =
        Json::parse(asker.ask("POST", "/v1/volumes", World::volume_body("root").dump()).body);
    require_ok(created);
    BOOST_TEST(created->text("state") == "available");
    BOOST_TEST(created->find("image")->is_null());
}

BOOST_AUTO_TEST_CASE(an_answer_of_a_vmm_is_not_believed_blindly)
{
    World world;
    world.add_usual();
    Asker asker{world};
    require_done(world.vnodes().create(World::vnode_body("web").set("start", true)));
    BOOST_TEST(asker.status("GET", "/v1/vnodes/web/stats") == 200);
    for (const std::string answer : {"", "{", "7", R"({"ok":false,"error":"busy"})", R"({"exits":1})"}) {
        world.hub.script(
            [answer](const std::string&, const Command& command) -> std::optional<Result<std::string>> {
                if (!std::holds_alternative<ControlVnode>(command)) return std::nullopt;
                return Result<std::string>{answer};
            });
        BOOST_TEST(asker.status("GET", "/v1/vnodes/web/stats") >= 400, answer);
    }
}

BOOST_AUTO_TEST_CASE(only_consoles_of_running_vnodes_are_websockets)
{
    World world;
    world.add_usual();
    const std::string authorization = "Bearer " + world.token();
    const auto upgraded = [&](const std::string& path, const std::string& token) {
        auto outcome = world.api().upgrade({"GET", path, token, {}});
        auto* refusal = std::get_if<HttpResponse>(&outcome);
        return refusal != nullptr ? refusal->status : 101;
    };
    require_done(world.vnodes().create(World::vnode_body("web")));
    BOOST_TEST(upgraded("/v1/vnodes/web/console", "") == 401);
    BOOST_TEST(upgraded("/v1/vnodes", authorization) == 400);
    BOOST_TEST(upgraded("/v1/vnodes/none/console", authorization) == 404);
    BOOST_TEST(upgraded("/v1/vnodes/web/console", authorization) == 409);
    require_done(world.vnodes().start("web"));
    BOOST_TEST(upgraded("/v1/vnodes/web/console", authorization) == 101);
    world.hub.connect("p1", false);
    BOOST_TEST(upgraded("/v1/vnodes/web/console", authorization) == 503);
}

BOOST_AUTO_TEST_CASE(a_console_is_opened_once_and_for_the_one_who_asked)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web").set("start", true)));
    ConsoleBroker broker;
    const auto pipe = broker.open(world.hub, "p1", "web");
    require_ok(pipe);
    const std::string session = std::get<OpenConsole>(world.hub.sent().back().command).session;
    BOOST_TEST(session.size() == 32u);
    BOOST_TEST(broker.arrived("") == nullptr);
    BOOST_TEST(broker.arrived(session) == *pipe);
    BOOST_TEST(broker.arrived(session) == nullptr, "a session is good for one stream");
    check_code(broker.open(world.hub, "p1", "none"), ErrorCode::kNotFound);
}

BOOST_AUTO_TEST_CASE(a_console_that_never_comes_is_closed)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web").set("start", true)));
    ConsoleBroker broker{0};
    const auto first = broker.open(world.hub, "p1", "web");
    require_ok(first);
    const auto user = std::make_shared<FakeEnd>();
    (*first)->attach(BytePipe::Side::kUser, user);
    BOOST_TEST(user->closed.empty());
    const auto second = broker.open(world.hub, "p1", "web");
    BOOST_TEST(user->closed == "the pComponent did not open the console");
    const auto late = std::make_shared<FakeEnd>();
    (*second)->attach(BytePipe::Side::kUser, late);
    broker.close_all();
    BOOST_TEST(late->closed == "the controller is stopping");
}

BOOST_AUTO_TEST_CASE(a_pipe_keeps_the_first_bytes_for_a_late_end)
{
    BytePipe pipe;
    const auto user = std::make_shared<FakeEnd>();
    const auto console = std::make_shared<FakeEnd>();
    bool taken = false;
    pipe.attach(BytePipe::Side::kUser, user);
    pipe.pass(BytePipe::Side::kUser, "hello", [&taken] { taken = true; });
    BOOST_TEST(!taken, "nobody has taken it");
    pipe.attach(BytePipe::Side::kConsole, console);
    BOOST_TEST(taken);
    BOOST_TEST(console->got == "hello");
    pipe.pass(BytePipe::Side::kConsole, "world", [] {});
    BOOST_TEST(user->got == "world");
    pipe.close("over");
    pipe.close("again");
    BOOST_TEST(user->closed == "over");
    BOOST_TEST(console->closed == "over");
    const auto late = std::make_shared<FakeEnd>();
    pipe.attach(BytePipe::Side::kUser, late);
    BOOST_TEST(late->closed == "over");
    pipe.pass(BytePipe::Side::kUser, "lost", [] { BOOST_ERROR("nobody takes bytes from a closed pipe"); });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
