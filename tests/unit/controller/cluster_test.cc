// The whole controller with its doors open, and components that attach to it as real ones do. The monitors
// are fake.

#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "base/text.h"
#include "controller/controller.h"
#include "controller/model/records.h"
#include "controller/wire/agent.h"
#include "tests/unit/controller/checks.h"
#include "tests/unit/controller/raw_http.h"
#include "tests/fakes/temporary_directory.h"

namespace splitvisor::controller {

namespace {

/// What a memory, a storage and a process monitor do, without doing it. Thread-safe.
class FakeMonitors final : public wire::MemoryCommands,
                           public wire::StorageCommands,
                           public wire::ProcessCommands {
  public:
    Status create_region(RegionId region, ByteCount, const std::string& capability, Epoch) override
    {
        const std::lock_guard lock{mutex_};
        if (refusing_) return Error{ErrorCode::kNoRoom, "the fake\xff is full"};
        if (capability.size() != 32) return Error{ErrorCode::kInvalid, "capability"};
        regions_.insert(region.value());
        return {};
    }
    Status delete_region(RegionId region) override
    {
        const std::lock_guard lock{mutex_};
        regions_.erase(region.value());
        return {};
    }
    Status set_region_epoch(RegionId, Epoch) override { return {}; }
    Status create_volume(VolumeId volume, ByteCount, const std::string&, const std::string&, Epoch) override
    {
        const std::lock_guard lock{mutex_};
        volumes_.insert(volume.value());
        return {};
    }
    Status delete_volume(VolumeId volume) override
    {
        const std::lock_guard lock{mutex_};
        volumes_.erase(volume.value());
        return {};
    }
    Status set_volume_epoch(VolumeId, Epoch) override { return {}; }
    Status start_vnode(const std::string& name, const std::string& spec_json) override
    {
        const auto spec = Json::parse(spec_json);
        if (!spec) return spec.error();
        const std::lock_guard lock{mutex_};
        vmms_[name] = Epoch{spec->number("epoch")};
        return {};
    }
    Status stop_vnode(const std::string& name, std::uint64_t) override
    {
        const std::lock_guard lock{mutex_};
        vmms_.erase(name);
        return {};
    }
    Result<std::string> control_vnode(const std::string&, const std::string&) override
    {
        return std::string{R"({"ok":true})"};
    }
    Status forget_vnode(const std::string&) override { return {}; }
    Result<Fd> open_console(const std::string&) override
    {
        return Error{ErrorCode::kNotFound, "the fake has no console"};
    }

    void refuse(bool refusing)
    {
        const std::lock_guard lock{mutex_};
        refusing_ = refusing;
    }
    [[nodiscard]] std::size_t regions() const
    {
        const std::lock_guard lock{mutex_};
        return regions_.size();
    }
    [[nodiscard]] std::map<std::string, Epoch> vmms() const
    {
        const std::lock_guard lock{mutex_};
        return vmms_;
    }
    /// A guest powers off.
    Epoch end(const std::string& name)
    {
        const std::lock_guard lock{mutex_};
        const Epoch epoch = vmms_.at(name);
        vmms_.erase(name);
        return epoch;
    }
    [[nodiscard]] wire::Usage usage() const
    {
        const std::lock_guard lock{mutex_};
        Json vnodes = Json::array();
        for (const auto& [name, epoch] : vmms_) {
            vnodes.push(Json::object().set("name", name).set("epoch", epoch.value()).set("state", "running"));
        }
        Json detail = Json::object();
        detail.set("vcpus", 4).set("kernels", Json::Array{"vmlinuz"}).set("vnodes", std::move(vnodes));
        return {ByteCount{kGiB}, ByteCount{0}, {"debian"}, detail.dump()};
    }

  private:
    mutable std::mutex mutex_;
    bool refusing_ = false;
    std::set<std::uint64_t> regions_;
    std::set<std::uint64_t> volumes_;
    std::map<std::string, Epoch> vmms_;
};

class Cluster {
  public:
    Cluster() { start(); }

    void start()
    {
        ControllerOptions options;
        options.state_dir = directory_ / "state";
        options.listen_port = 0;
        options.listen_control = "127.0.0.1:" + std::to_string(control_port_);
        options.region_size = ByteCount{64 * kMiB};
        options.heartbeat_limit_ms = 60'000;
        // The port can be had again as soon as the connections of the controller before have ended.
        std::string problem;
        BOOST_REQUIRE_MESSAGE(eventually([&] {
                                  auto controller = Controller::start(options);
                                  if (controller)
                                      controller_ = std::move(*controller);
                                  else
                                      problem = controller.error().message();
                                  return controller_ != nullptr;
                              }),
                              problem);
        control_port_ = controller_->control_port();
    }
    void stop() { controller_.reset(); }

    [[nodiscard]] std::string file(const std::string& name) const
    {
        auto text = read_file(directory_ / ("state/" + name), ByteCount{kKiB});
        require_ok(text);
        text->pop_back();
        return std::move(*text);
    }
    wire::AgentOptions options(ComponentKind kind, const std::string& name)
    {
        wire::AgentOptions options;
        options.kind = kind;
        options.name = name;
        options.controller = "127.0.0.1:" + std::to_string(control_port_);
        options.token = file("enrol-token");
        if (kind != ComponentKind::kProcessor) options.data_endpoint = "tcp:127.0.0.1:1";
        options.usage = [this] { return monitors.usage(); };
        if (kind == ComponentKind::kMemory) options.memory = &monitors;
        if (kind == ComponentKind::kStorage) options.storage = &monitors;
        if (kind == ComponentKind::kProcessor) options.process = &monitors;
        return options;
    }
    std::unique_ptr<wire::Agent> attach(ComponentKind kind, const std::string& name)
    {
        auto agent = wire::start_agent(options(kind, name), 60'000);
        require_ok(agent);
        BOOST_REQUIRE(eventually([&] { return get("/v1/components/" + name).flag("connected"); }));
        return std::move(*agent);
    }

    RawResponse ask(const std::string& method, const std::string& path, const std::string& body = {})
    {
        RawHttp connection{controller_->rest_port()};
        BOOST_REQUIRE(connection.send(
            method + " " + path + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + file("admin-token") +
            "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body));
        return connection.read_response();
    }
    Json get(const std::string& path)
    {
        auto json = Json::parse(ask("GET", path).body);
        require_ok(json);
        return std::move(*json);
    }
    [[nodiscard]] std::uint16_t rest_port() const { return controller_->rest_port(); }
    [[nodiscard]] std::string state_dir() const { return directory_ / "state"; }

    FakeMonitors monitors;

  private:
    fakes::TemporaryDirectory directory_;
    std::uint16_t control_port_ = 0;
    std::unique_ptr<Controller> controller_;
};

const std::string kWeb = R"({"name":"web","memory":"128M","kernel":"vmlinuz","start":true})";

}  // namespace

BOOST_AUTO_TEST_SUITE(cluster)

BOOST_AUTO_TEST_CASE(a_stranger_is_refused_and_told_why)
{
    Cluster cluster;
    auto options = cluster.options(ComponentKind::kMemory, "m1");
    options.token = cluster.file("admin-token");
    const auto refused = wire::start_agent(options, 60'000);
    check_code(refused, ErrorCode::kDenied);
    BOOST_TEST(contains(refused.error().message(), "wrong enrolment token"));
    options.token = "\xff\xfe";
    check_code(wire::start_agent(options, 60'000), ErrorCode::kDenied);
    BOOST_TEST(cluster.get("/v1/components").elements("components").empty());
    BOOST_TEST(cluster.ask("GET", "/v1/nothing").status == 404);
    RawHttp stranger{cluster.rest_port()};
    BOOST_REQUIRE(stranger.send("GET /v1/vnodes HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " +
                                cluster.file("enrol-token") + "\r\n\r\n"));
    BOOST_TEST(stranger.read_response().status == 401);
}

BOOST_AUTO_TEST_CASE(two_controllers_do_not_share_a_state)
{
    Cluster cluster;
    ControllerOptions options;
    options.state_dir = cluster.state_dir();
    options.listen_port = 0;
    options.listen_control = "127.0.0.1:0";
    const auto second = Controller::start(options);
    check_code(second, ErrorCode::kExists);
    BOOST_TEST(contains(second.error().message(), "another controller uses " + cluster.state_dir()));
}

BOOST_AUTO_TEST_CASE(vnodes_run_on_while_the_controller_is_restarted)
{
    Cluster cluster;
    const auto m1 = cluster.attach(ComponentKind::kMemory, "m1");
    const auto p1 = cluster.attach(ComponentKind::kProcessor, "p1");
    const auto created = cluster.ask("POST", "/v1/vnodes", kWeb);
    BOOST_TEST(created.status == 201, created.body);
    BOOST_TEST(cluster.monitors.regions() == 2u);
    const Epoch epoch = cluster.monitors.vmms().at("web");

    cluster.stop();
    cluster.start();
    BOOST_TEST(eventually([&] { return cluster.get("/v1/vnodes/web").text("state") == "running"; }));
    BOOST_TEST((cluster.monitors.vmms().at("web") == epoch), "nothing was started again");
    BOOST_TEST(cluster.monitors.regions() == 2u);

    // It ends while the controller is away; the report waits.
    cluster.stop();
    p1->report_vnode_exit("web", cluster.monitors.end("web"), 10, "panic\xff");
    cluster.start();
    BOOST_TEST(eventually([&] { return cluster.get("/v1/vnodes/web").text("state") == "failed"; }));
    BOOST_TEST(cluster.get("/v1/vnodes/web").text("reason") == "the guest crashed: panic?");
    BOOST_TEST(eventually([&] { return cluster.ask("DELETE", "/v1/vnodes/web").status == 204; }));
    BOOST_TEST(eventually([&] { return cluster.monitors.regions() == 0; }));
}

BOOST_AUTO_TEST_CASE(a_guest_that_powers_off_stays_off)
{
    Cluster cluster;
    const auto m1 = cluster.attach(ComponentKind::kMemory, "m1");
    const auto p1 = cluster.attach(ComponentKind::kProcessor, "p1");
    BOOST_TEST(cluster.ask("POST", "/v1/vnodes", kWeb).status == 201);
    p1->report_vnode_exit("web", cluster.monitors.end("web"), 0, "");
    BOOST_TEST(eventually([&] { return cluster.get("/v1/vnodes/web").text("state") == "stopped"; }));
    // What an old heartbeat could do it would have done by the time of some further ones.
    std::set<std::string> states;
    for (int i = 0; i < 40; ++i) {
        states.insert(cluster.get("/v1/vnodes/web").text("state"));
        std::this_thread::sleep_for(std::chrono::milliseconds{50});
    }
    BOOST_TEST(states == std::set<std::string>{"stopped"}, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_refusal_travels_all_the_way)
{
    Cluster cluster;
    const auto m1 = cluster.attach(ComponentKind::kMemory, "m1");
    const auto p1 = cluster.attach(ComponentKind::kProcessor, "p1");
    cluster.monitors.refuse(true);
    const auto refused = cluster.ask("POST", "/v1/vnodes", kWeb);
    BOOST_TEST(refused.status == 409, refused.body);
    BOOST_TEST(contains(refused.body, "m1: the fake? is full"), refused.body);
    BOOST_TEST(cluster.ask("GET", "/v1/vnodes/web").status == 404);
    BOOST_TEST(cluster.monitors.regions() == 0u);
    cluster.monitors.refuse(false);
    BOOST_TEST(cluster.ask("POST", "/v1/vnodes", kWeb).status == 201);
    // A console that the pComponent refuses is an answer, not a WebSocket.
    RawHttp console{cluster.rest_port()};
    BOOST_REQUIRE(
        console.send("GET /v1/vnodes/web/console HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " +
                     cluster.file("admin-token") +
                     "\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"));
    const auto answer = console.read_response();
    BOOST_TEST(answer.status == 404);
    BOOST_TEST(contains(answer.body, "the fake has no console"), answer.body);
}

BOOST_AUTO_TEST_CASE(a_component_that_goes_is_away_and_comes_back)
{
    Cluster cluster;
    auto m1 = cluster.attach(ComponentKind::kMemory, "m1");
    m1.reset();
    BOOST_TEST(eventually([&] { return !cluster.get("/v1/components/m1").flag("connected"); }));
    const auto p1 = cluster.attach(ComponentKind::kProcessor, "p1");
    const auto refused = cluster.ask("POST", "/v1/vnodes", kWeb);
    BOOST_TEST(refused.status == 409);
    BOOST_TEST(contains(refused.body, "m1: not connected"), refused.body);
    m1 = cluster.attach(ComponentKind::kMemory, "m1");
    BOOST_TEST(cluster.ask("POST", "/v1/vnodes", kWeb).status == 201);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
