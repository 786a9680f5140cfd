#include "controller/components/registry.h"

#include <atomic>
#include <mutex>

#include "base/thread.h"
#include "controller/wire/protocol.h"
#include "tests/unit/controller/checks.h"
#include "tests/fakes/temporary_directory.h"

namespace splitvisor::controller {

namespace {

/// Notes what is sent. Thread-safe.
class FakeLink final : public ComponentLink {
  public:
    void send(std::uint64_t id, const Command& command, std::uint64_t) override
    {
        const std::lock_guard lock{mutex_};
        sent_.emplace_back(id, command);
    }
    void acknowledge_exit(std::uint64_t sequence) override { acknowledged_ = sequence; }
    void close(const std::string&) override { closed_ = true; }

    [[nodiscard]] std::vector<std::pair<std::uint64_t, Command>> sent() const
    {
        const std::lock_guard lock{mutex_};
        return sent_;
    }
    [[nodiscard]] bool closed() const { return closed_; }
    [[nodiscard]] std::uint64_t acknowledged() const { return acknowledged_; }

  private:
    mutable std::mutex mutex_;
    std::vector<std::pair<std::uint64_t, Command>> sent_;
    std::atomic<bool> closed_ = false;
    std::atomic<std::uint64_t> acknowledged_ = 0;
};

class Enrolment {
  public:
    explicit Enrolment(std::uint64_t heartbeat_limit_ms = 600'000)
    {
        auto store = open_sqlite_store(directory_ / "state.db");
        require_ok(store);
        store_ = std::move(*store);
        auto catalog = Catalog::load(*store_);
        require_ok(catalog);
        catalog_ = std::move(*catalog);
        RegistryOptions options;
        options.heartbeat_limit_ms = heartbeat_limit_ms;
        options.is_enrol_token = [](const std::string& token) { return token == "secret"; };
        options.on_vnode_exit = [this](VnodeExit exit, std::function<void()> heard) {
            exits_.push_back(std::move(exit));
            heard();
        };
        registry_ = std::make_unique<ComponentRegistry>(*catalog_, std::move(options));
    }

    static EnrolRequest request(const std::string& name, std::uint64_t instance = 1)
    {
        return {"secret", name,     ComponentKind::kMemory, "tcp:127.0.0.1:1",
                1,        instance, wire::kProtocolVersion};
    }
    std::string refusal(const EnrolRequest& request)
    {
        const auto refused = registry_->enrol(request, std::make_shared<FakeLink>());
        if (!refused) return "accepted";
        return refused->reason + (refused->retry ? ", try again" : "");
    }
    std::shared_ptr<FakeLink> enrol(const EnrolRequest& request)
    {
        auto link = std::make_shared<FakeLink>();
        const auto refused = registry_->enrol(request, link);
        BOOST_REQUIRE_MESSAGE(!refused.has_value(), (refused ? refused->reason : ""));
        return link;
    }
    void beat(const std::shared_ptr<FakeLink>& link, const std::string& name,
              const std::string& detail = "{}")
    {
        registry_->heartbeat(link.get(), name, {ByteCount{kGiB}, ByteCount{kMiB}, {}, detail});
    }
    [[nodiscard]] ComponentRegistry& registry() { return *registry_; }
    [[nodiscard]] Catalog& catalog() { return *catalog_; }
    [[nodiscard]] const std::vector<VnodeExit>& exits() const { return exits_; }

  private:
    const fakes::TemporaryDirectory directory_;
    std::unique_ptr<MetaStore> store_;
    std::unique_ptr<Catalog> catalog_;
    std::vector<VnodeExit> exits_;
    std::unique_ptr<ComponentRegistry> registry_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(registry)

BOOST_AUTO_TEST_CASE(strangers_are_refused_and_not_remembered)
{
    Enrolment world;
    auto request = Enrolment::request("m1");
    request.token = "wrong";
    BOOST_TEST(world.refusal(request) == "wrong enrolment token");
    request.token.clear();
    BOOST_TEST(world.refusal(request) == "wrong enrolment token");
    request = Enrolment::request("m1");
    request.protocol = wire::kProtocolVersion + 1;
    BOOST_TEST(contains(world.refusal(request), "protocol version"));
    BOOST_TEST(contains(world.refusal(Enrolment::request("M1")), "not a valid name"));
    BOOST_TEST(contains(world.refusal(Enrolment::request("")), "not a valid name"));
    request = Enrolment::request("m1");
    request.data_endpoint.clear();
    BOOST_TEST(world.refusal(request) == "no data endpoint");
    BOOST_TEST(world.catalog().read([](const Contents& contents) { return contents.components.empty(); }));
    BOOST_TEST(world.registry().connected().empty());
    check_code(world.registry().call("m1", DeleteRegion{RegionId{1}}, 1000), ErrorCode::kUnavailable);
}

BOOST_AUTO_TEST_CASE(a_component_is_there_from_its_first_heartbeat)
{
    Enrolment world;
    const auto link = world.enrol(Enrolment::request("m1"));
    BOOST_TEST(!world.registry().find("m1").has_value(), "what it has is not known yet");
    world.beat(link, "m1", R"({"figure":7})");
    const auto found = world.registry().find("m1");
    BOOST_REQUIRE(found.has_value());
    BOOST_TEST(found->capacity.value() == kGiB);
    BOOST_TEST(found->detail.number("figure") == 7u);
    for (const std::string garbage : {"", "{", "7", "[]", "null", "\"text\""}) {
        world.beat(link, "m1", garbage);
        BOOST_TEST(world.registry().find("m1")->detail.if_object() != nullptr, garbage);
    }
    world.registry().detached(link.get(), "m1");
    BOOST_TEST(!world.registry().find("m1").has_value());
    auto other = Enrolment::request("m1", 2);
    other.kind = ComponentKind::kStorage;
    BOOST_TEST(world.refusal(other) == "'m1' is known as a memory component");
}

BOOST_AUTO_TEST_CASE(a_component_without_heartbeats_is_away)
{
    Enrolment world{1};
    const auto link = world.enrol(Enrolment::request("m1"));
    world.beat(link, "m1");
    BOOST_TEST(eventually([&] { return !world.registry().find("m1").has_value(); }));
    BOOST_TEST(world.registry().connected().empty());
    check_code(world.registry().call("m1", DeleteRegion{RegionId{1}}, 60'000), ErrorCode::kUnavailable);
    BOOST_TEST(link->sent().empty());
    BOOST_TEST(world.refusal(Enrolment::request("m1", 2)) == "accepted", "its name is free again");
    BOOST_TEST(link->closed());
}

BOOST_AUTO_TEST_CASE(a_name_belongs_to_one_process_at_a_time)
{
    Enrolment world;
    const auto first = world.enrol(Enrolment::request("m1", 1));
    BOOST_TEST(world.refusal(Enrolment::request("m1", 2)) ==
               "a component named 'm1' is connected already, try again");
    BOOST_TEST(!first->closed());
    const auto second = world.enrol(Enrolment::request("m1", 1));
    BOOST_TEST(first->closed(), "the same process has connected again");
    world.beat(first, "m1");
    BOOST_TEST(!world.registry().find("m1").has_value(), "the old connection says nothing any more");
    world.registry().detached(first.get(), "m1");
    world.beat(second, "m1");
    BOOST_TEST(world.registry().find("m1").has_value());
}

// Both can have passed the first check; whoever is not the one that is heard must be closed, or it would wait
// for ever.
BOOST_AUTO_TEST_CASE(of_two_processes_that_enrol_at_once_one_is_closed)
{
    for (int round = 0; round < 60; ++round) {
        Enrolment world;
        std::vector<std::shared_ptr<FakeLink>> links(4);
        std::vector<std::atomic<bool>> accepted(links.size());
        {
            std::vector<Thread> threads;
            for (std::size_t i = 0; i < links.size(); ++i) {
                links[i] = std::make_shared<FakeLink>();
                threads.emplace_back("enrol", [&, i] {
                    accepted[i] = !world.registry().enrol(Enrolment::request("m1", i), links[i]).has_value();
                });
            }
        }
        std::size_t open = 0;
        for (std::size_t i = 0; i < links.size(); ++i) {
            if (!accepted[i] || links[i]->closed()) continue;
            ++open;
            world.beat(links[i], "m1");
        }
        BOOST_REQUIRE(open == 1u);
        BOOST_REQUIRE(world.registry().find("m1").has_value());
    }
}

BOOST_AUTO_TEST_CASE(calls_are_answered_by_the_one_that_was_asked)
{
    Enrolment world;
    const auto link = world.enrol(Enrolment::request("m1"));
    static_cast<void>(world.enrol(Enrolment::request("m2")));
    std::optional<Result<std::string>> answer;
    Thread calling{"call", [&] { answer = world.registry().call("m1", DeleteRegion{RegionId{7}}, 600'000); }};
    BOOST_REQUIRE(eventually([&] { return link->sent().size() == 1; }));
    const std::uint64_t id = link->sent()[0].first;
    BOOST_TEST((std::get<DeleteRegion>(link->sent()[0].second).region == RegionId{7}));
    world.registry().result("m2", id, std::string{"not mine"});
    world.registry().result("m1", id + 1, std::string{"not this"});
    world.registry().result("m1", id, Error{ErrorCode::kNoRoom, "full"});
    world.registry().result("m1", id, std::string{"too late"});
    calling.join();
    check_code(*answer, ErrorCode::kNoRoom);
    BOOST_TEST(answer->error().message() == "m1: full");
    check_code(world.registry().call("m1", DeleteRegion{RegionId{8}}, 1), ErrorCode::kTimeout);
    BOOST_TEST((link->sent()[1].first != id));
}

BOOST_AUTO_TEST_CASE(a_call_is_sent_again_after_a_reconnection)
{
    Enrolment world;
    const auto first = world.enrol(Enrolment::request("m1"));
    std::optional<Result<std::string>> answer;
    Thread calling{"call", [&] { answer = world.registry().call("m1", DeleteRegion{RegionId{7}}, 600'000); }};
    BOOST_REQUIRE(eventually([&] { return first->sent().size() == 1; }));
    world.registry().detached(first.get(), "m1");
    const auto second = world.enrol(Enrolment::request("m1"));
    BOOST_REQUIRE(second->sent().size() == 1u);
    BOOST_TEST(second->sent()[0].first == first->sent()[0].first, "the component executes an id once");
    world.registry().result("m1", second->sent()[0].first, std::string{"done"});
    calling.join();
    require_ok(*answer);
    BOOST_TEST(answer->value() == "done");
    BOOST_TEST(world.enrol(Enrolment::request("m1"))->sent().empty());
}

BOOST_AUTO_TEST_CASE(nobody_waits_for_a_controller_that_stops)
{
    Enrolment world;
    const auto link = world.enrol(Enrolment::request("m1"));
    std::optional<Result<std::string>> answer;
    Thread calling{"call", [&] { answer = world.registry().call("m1", DeleteRegion{RegionId{7}}, 600'000); }};
    BOOST_REQUIRE(eventually([&] { return link->sent().size() == 1; }));
    world.registry().shut_down();
    calling.join();
    check_code(*answer, ErrorCode::kUnavailable);
    check_code(world.registry().call("m1", DeleteRegion{RegionId{7}}, 600'000), ErrorCode::kUnavailable);
}

BOOST_AUTO_TEST_CASE(a_memory_monitor_that_was_started_anew_has_lost_its_regions)
{
    Enrolment world;
    require_ok(world.catalog().update([](Draft& draft) -> Status {
        VnodeRecord record;
        record.name = "web";
        record.regions = {
            {ByteCount{kMiB}, {{"m1", RegionId{1}, "", false}, {"m2", RegionId{2}, "", false}}}};
        draft.put(std::move(record));
        return {};
    }));
    const auto lost = [&world](std::size_t replica) {
        return world.catalog().read([replica](const Contents& now) {
            return now.vnodes.at("web").regions[0].replicas[replica].lost;
        });
    };
    static_cast<void>(world.enrol(Enrolment::request("m1")));
    static_cast<void>(world.enrol(Enrolment::request("m1")));
    BOOST_TEST(!lost(0));
    auto anew = Enrolment::request("m1");
    anew.incarnation = 2;
    static_cast<void>(world.enrol(anew));
    BOOST_TEST(lost(0));
    BOOST_TEST(!lost(1));
}

BOOST_AUTO_TEST_CASE(an_exit_is_acknowledged_to_the_connection_that_told_it)
{
    Enrolment world;
    const auto link = world.enrol(Enrolment::request("m1"));
    world.registry().vnode_exit(link, 42, {"m1", "web", Epoch{3}, 137, "gone"});
    BOOST_TEST(link->acknowledged() == 42u);
    BOOST_REQUIRE(world.exits().size() == 1u);
    BOOST_TEST(world.exits()[0].reason == "gone");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
