#include "controller/vnodes/reconciler.h"

#include <atomic>
#include <optional>

#include "tests/unit/controller/checks.h"
#include "tests/unit/controller/world.h"

namespace splitvisor::controller {

namespace {

/// A world that is looked after, with vNode "web" created on p1.
class WatchedWorld : public World {
  public:
    WatchedWorld()
    {
        add_usual();
        require_done(volumes().create(volume_body("root")));
        require_done(vnodes().create(
            vnode_body("web").set("volumes", Json::Array{Json::object().set("name", "root")})));
        watch();
    }

    void watch() { reconciler_.emplace(catalog(), hub, processes(), vnodes()); }
    /// The controller is gone; nothing looks.
    void unwatch() { reconciler_.reset(); }
    void restart_watched()
    {
        unwatch();
        restart();
        watch();
    }

    [[nodiscard]] Reconciler& reconciler() { return *reconciler_; }
    [[nodiscard]] VnodeRecord web() { return contents().vnodes.at("web"); }
    [[nodiscard]] std::string state() { return std::string{to_string(web().state)}; }
    void set_state(VnodeState state)
    {
        require_ok(catalog().update([&](Draft& draft) -> Status {
            VnodeRecord record = *draft.vnode("web");
            record.state = state;
            draft.put(std::move(record));
            return {};
        }));
    }
    /// Has the reconciler look at everything as it is now.
    void look()
    {
        const std::uint64_t before = hub.looks();
        // The second look begins when the first has ended.
        BOOST_REQUIRE(eventually([&] {
            reconciler().wake();
            return hub.looks() >= before + 2;
        }));
    }
    void look_after_beats(int beats)
    {
        for (int i = 0; i < beats; ++i) {
            hub.beat();
            look();
        }
    }

  private:
    std::optional<Reconciler> reconciler_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(reconciler)

// The latest heartbeat is older than the report of the end, and one more old one can be under way.
BOOST_AUTO_TEST_CASE(an_old_heartbeat_does_not_bring_an_ended_vnode_back)
{
    WatchedWorld world;
    require_done(world.vnodes().start("web"));
    std::atomic<bool> heard = false;
    world.reconciler().add_exit({"p1", "web", world.web().epoch, 0, {}}, [&heard] { heard = true; });
    BOOST_TEST(eventually([&] { return heard.load(); }));
    world.look();
    world.look_after_beats(1);
    BOOST_TEST(world.state() == "stopped");
    world.hub.change("p1", [](auto& component) { component.vmms.clear(); });
    world.look_after_beats(5);
    BOOST_TEST(world.state() == "stopped");
    BOOST_TEST(world.web().reason == "powered off by the guest");
}

BOOST_AUTO_TEST_CASE(a_vnode_that_runs_on_is_found)
{
    WatchedWorld world;
    require_done(world.vnodes().start("web"));
    world.set_state(VnodeState::kFailed);
    world.look_after_beats(4);
    BOOST_TEST(world.state() == "running");
    BOOST_TEST(world.web().reason == "found running");
}

BOOST_AUTO_TEST_CASE(a_vnode_that_is_missing_has_failed_after_some_heartbeats)
{
    WatchedWorld world;
    require_done(world.vnodes().start("web"));
    world.look();
    world.hub.change("p1", [](auto& component) { component.vmms.clear(); });
    world.look();
    world.look_after_beats(2);
    BOOST_TEST(world.state() == "running", "its exit report may be under way");
    world.look_after_beats(2);
    BOOST_TEST(world.state() == "failed");
    BOOST_TEST(contains(world.web().reason, "said nothing of its end"));
    require_done(world.vnodes().start("web"));
}

BOOST_AUTO_TEST_CASE(a_pcomponent_that_is_away_says_nothing_about_its_vnodes)
{
    WatchedWorld world;
    require_done(world.vnodes().start("web"));
    world.hub.connect("p1", false);
    world.look_after_beats(6);
    BOOST_TEST(world.state() == "running");
    BOOST_TEST(world.vnodes().show("web")->text("state") == "unknown");
    world.hub.connect("p1", true);
    world.look_after_beats(6);
    BOOST_TEST(world.state() == "running");
}

BOOST_AUTO_TEST_CASE(a_restart_finds_what_runs)
{
    WatchedWorld world;
    require_done(world.vnodes().start("web"));
    const VnodeRecord before = world.web();
    world.restart_watched();
    world.look_after_beats(4);
    BOOST_TEST((world.web() == before), "nothing has happened");
    world.unwatch();
    world.set_state(VnodeState::kStarting);
    world.restart_watched();
    world.look_after_beats(4);
    BOOST_TEST(world.state() == "running");
}

BOOST_AUTO_TEST_CASE(a_start_that_the_controller_did_not_survive_has_failed)
{
    WatchedWorld world;
    world.unwatch();
    world.set_state(VnodeState::kStarting);
    world.restart_watched();
    world.look_after_beats(5);
    BOOST_TEST(world.state() == "failed");
    BOOST_TEST(world.web().reason == "the controller stopped while the vNode was being started");
}

BOOST_AUTO_TEST_CASE(a_stop_that_the_controller_did_not_survive_goes_on)
{
    WatchedWorld world;
    require_done(world.vnodes().start("web"));
    world.unwatch();
    world.set_state(VnodeState::kStopping);
    world.restart_watched();
    BOOST_TEST(eventually([&] { return world.state() == "stopped"; }));
    BOOST_TEST(world.hub.at("p1").vmms.empty());
    world.unwatch();
    world.set_state(VnodeState::kStopping);
    world.restart_watched();
    world.look_after_beats(5);
    BOOST_TEST(world.state() == "stopped", "it ended while nobody looked");
}

BOOST_AUTO_TEST_CASE(a_vnode_that_somebody_works_on_is_left_alone)
{
    WatchedWorld world;
    require_done(world.vnodes().start("web"));
    {
        const auto claim = world.vnodes().claims().take("web", "is being tested");
        BOOST_REQUIRE(claim.has_value());
        world.hub.change("p1", [](auto& component) { component.vmms.clear(); });
        world.look_after_beats(6);
        BOOST_TEST(world.state() == "running");
    }
    world.look_after_beats(6);
    BOOST_TEST(world.state() == "failed");
}

BOOST_AUTO_TEST_CASE(the_vmm_of_a_fenced_run_is_ended_when_its_pcomponent_is_back)
{
    WatchedWorld world;
    world.add_processor("p2");
    require_done(world.vnodes().start("web"));
    const std::string old_home = world.web().pcomponent;
    const std::string new_home = old_home == "p1" ? "p2" : "p1";
    world.hub.connect(old_home, false);
    require_done(world.vnodes().stop("web", {0, true}));
    require_done(world.vnodes().start("web"));
    BOOST_TEST(world.web().pcomponent == new_home);
    BOOST_TEST(world.hub.at(old_home).vmms.contains("web"));
    world.hub.connect(old_home, true);
    BOOST_TEST(eventually([&] { return world.hub.at(old_home).vmms.empty(); }));
    world.look_after_beats(4);
    BOOST_TEST(world.hub.at(new_home).vmms.contains("web"));
    BOOST_TEST(world.state() == "running");
}

BOOST_AUTO_TEST_CASE(an_unknown_vmm_is_reported_and_never_ended)
{
    WatchedWorld world;
    world.hub.change("p1", [](auto& component) { component.vmms["stray"] = {Epoch{1}, "{}"}; });
    world.look_after_beats(6);
    BOOST_TEST(world.hub.at("p1").vmms.contains("stray"));
    const auto shown = world.api().handle({"GET", "/v1/components/p1", "Bearer " + world.token(), {}});
    BOOST_TEST(contains(shown.body, R"("unknown_vnodes":["stray"])"), shown.body);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
