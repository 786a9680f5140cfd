#include <atomic>
#include <future>
#include <set>

#include "base/thread.h"
#include "tests/unit/controller/checks.h"
#include "tests/unit/controller/world.h"

namespace splitvisor::controller {

namespace {

/// Nothing is left of any vNode: neither in the catalogue nor on a component.
void check_empty(World& world)
{
    const Contents contents = world.contents();
    BOOST_TEST(contents.vnodes.empty());
    BOOST_TEST(contents.deletions.empty());
    for (const ComponentStatus& component : world.hub.connected()) {
        const auto now = world.hub.at(component.name);
        BOOST_TEST(now.vmms.empty(), component.name);
        if (component.kind == ComponentKind::kMemory) BOOST_TEST(now.held.empty(), component.name);
    }
}

std::string state_of(World& world, const std::string& name)
{
    const auto shown = world.vnodes().show(name);
    return shown ? shown->text("state") : "none";
}

/// Answers every command of one kind with an error, in the component's place.
template <typename Kind>
FakeComponentHub::Script failing(ErrorCode code)
{
    return [code](const std::string&, const Command& command) -> std::optional<Result<std::string>> {
        if (!std::holds_alternative<Kind>(command)) return std::nullopt;
        return Result<std::string>{Error{code, "the fake says no"}};
    };
}

/// Holds the first command of one kind until it is let go.
template <typename Kind>
class Gate {
  public:
    explicit Gate(FakeComponentHub& hub)
    {
        hub.script([this](const std::string&, const Command& command) -> std::optional<Result<std::string>> {
            if (std::holds_alternative<Kind>(command) && !passed_.exchange(true)) {
                arrived_.set_value();
                go_.get_future().wait();
            }
            return std::nullopt;
        });
    }
    void await() { arrived_.get_future().wait(); }
    void open() { go_.set_value(); }

  private:
    std::atomic<bool> passed_ = false;
    std::promise<void> arrived_;
    std::promise<void> go_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(vnodes)

BOOST_AUTO_TEST_CASE(a_vnode_lives_and_leaves_nothing)
{
    World world;
    world.add_usual();
    require_done(world.volumes().create(World::volume_body("root").set("image", "debian")));
    const auto created = world.vnodes().create(
        World::vnode_body("web", "160M").set("volumes", Json::Array{Json::object().set("name", "root")}));
    require_done(created);
    BOOST_TEST(created->text("state") == "stopped");
    BOOST_TEST(created->text("pcomponent") == "p1");
    BOOST_TEST(created->elements("regions").size() == 3u);
    BOOST_TEST(created->number("excache_bytes") == 40 * kMiB);
    BOOST_TEST(world.hub.at("m1").held.size() == 3u);

    const auto started = world.vnodes().start("web");
    require_done(started);
    BOOST_TEST(started->text("state") == "running");
    BOOST_TEST(started->number("epoch") > created->number("epoch"));
    const auto vmm = world.hub.at("p1").vmms.at("web");
    BOOST_TEST(vmm.epoch.value() == started->number("epoch"));
    const auto spec = Json::parse(vmm.spec_json);
    require_ok(spec);
    BOOST_TEST(spec->elements("regions").size() == 3u);
    BOOST_TEST(spec->elements("disks").size() == 1u);
    BOOST_TEST(spec->elements("disks")[0].text("endpoint") == "tcp:127.0.0.1:2");
    BOOST_TEST(spec->elements("disks")[0].text("capability").size() == 32u);
    BOOST_TEST((world.hub.at("s1").epochs.begin()->second == vmm.epoch), "the volume is this run's alone");
    BOOST_TEST(world.vnodes().stats("web")->flag("ok"));

    check_kind(world.vnodes().start("web"), Problem::Kind::kWrongState);
    check_kind(world.vnodes().remove("web"), Problem::Kind::kWrongState);
    const auto stopped = world.vnodes().stop("web", {});
    require_done(stopped);
    BOOST_TEST(stopped->text("state") == "stopped");
    check_kind(world.vnodes().stop("web", {}), Problem::Kind::kWrongState);
    check_kind(world.vnodes().stats("web"), Problem::Kind::kWrongState);
    require_done(world.vnodes().remove("web"));
    check_empty(world);
    check_kind(world.vnodes().show("web"), Problem::Kind::kNotFound);
    require_done(world.volumes().remove("root"));
    BOOST_TEST(world.hub.at("s1").held.empty());
}

BOOST_AUTO_TEST_CASE(every_run_has_its_own_regions_and_capabilities)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web")));
    std::set<std::string> capabilities;
    std::set<std::uint64_t> regions;
    std::uint64_t epoch = 0;
    for (int run = 0; run < 5; ++run) {
        require_done(world.vnodes().start("web"));
        const VnodeRecord record = world.contents().vnodes.at("web");
        BOOST_TEST(record.epoch.value() > epoch);
        epoch = record.epoch.value();
        for (const RegionRecord& region : record.regions) {
            BOOST_TEST(capabilities.insert(region.replicas[0].capability).second);
            BOOST_TEST(regions.insert(region.replicas[0].region.value()).second);
            BOOST_TEST(world.hub.at("m1").held.contains(region.replicas[0].region.value()));
        }
        BOOST_TEST(world.hub.at("m1").held.size() == 2u, "those of the run before are gone");
        require_done(world.vnodes().stop("web", {}));
    }
}

BOOST_AUTO_TEST_CASE(no_answer_shows_a_capability)
{
    World world;
    world.add_usual();
    require_done(world.volumes().create(World::volume_body("root")));
    require_done(world.vnodes().create(World::vnode_body("web")
                                           .set("volumes", Json::Array{Json::object().set("name", "root")})
                                           .set("start", true)));
    const Contents contents = world.contents();
    const std::string shown = world.vnodes().list().dump() + world.volumes().list().dump();
    BOOST_TEST(!contains(shown, contents.volumes.at("root").capability));
    for (const RegionRecord& region : contents.vnodes.at("web").regions) {
        BOOST_TEST(!contains(shown, region.replicas[0].capability));
    }
}

BOOST_AUTO_TEST_CASE(a_component_that_refuses_leaves_nothing_half_created)
{
    for (const ErrorCode code :
         {ErrorCode::kNoRoom, ErrorCode::kTimeout, ErrorCode::kIo, ErrorCode::kUnavailable}) {
        World world;
        world.add_usual();
        int creations = 0;
        // The second region of three fails.
        world.hub.script(
            [&](const std::string&, const Command& command) -> std::optional<Result<std::string>> {
                if (!std::holds_alternative<CreateRegion>(command) || ++creations != 2) return std::nullopt;
                return Result<std::string>{Error{code, "the fake says no"}};
            });
        const auto refused = world.vnodes().create(World::vnode_body("web", "160M"));
        check_kind(refused, problem_of(Error{code, ""}).kind);
        BOOST_TEST(contains(refused.problem().detail, "vNode 'web' was not created: the fake says no"));
        BOOST_TEST(creations == 2);
        check_empty(world);
        require_done(world.vnodes().create(World::vnode_body("web", "160M")));
    }
}

BOOST_AUTO_TEST_CASE(a_component_that_dies_in_the_middle_is_cleaned_up_when_it_is_back)
{
    World world;
    world.add_usual();
    int creations = 0;
    world.hub.script(
        [&](const std::string& name, const Command& command) -> std::optional<Result<std::string>> {
            if (!std::holds_alternative<CreateRegion>(command) || ++creations != 3) return std::nullopt;
            // It has done what it was told, and nobody hears of it.
            static_cast<void>(world.hub.obey(name, command));
            world.hub.connect(name, false);
            return Result<std::string>{Error{ErrorCode::kTimeout, "no answer"}};
        });
    check_kind(world.vnodes().create(World::vnode_body("web", "160M")), Problem::Kind::kTimeout);
    BOOST_TEST(world.contents().vnodes.empty());
    BOOST_TEST(world.hub.at("m1").held.size() == 3u);
    BOOST_TEST(world.contents().deletions.size() == 3u);
    BOOST_TEST(world.contents().allocated_on("m1").value() == 160 * kMiB,
               "its room is not given away before");
    world.hub.connect("m1", true);
    world.reaper().wake();
    BOOST_TEST(eventually([&] { return world.contents().deletions.empty(); }));
    check_empty(world);
}

BOOST_AUTO_TEST_CASE(the_reaper_does_not_let_one_component_hold_up_another)
{
    World world;
    world.add_processor("p1");
    world.add_memory("m1");
    world.add_memory("m2");
    require_done(world.vnodes().create(World::vnode_body("web").set("memory_copies", 2)));
    std::atomic<int> refused = 0;
    world.hub.script(
        [&](const std::string& name, const Command& command) -> std::optional<Result<std::string>> {
            if (name != "m1" || !std::holds_alternative<DeleteRegion>(command)) return std::nullopt;
            ++refused;
            return Result<std::string>{Error{ErrorCode::kTimeout, "hangs"}};
        });
    require_done(world.vnodes().remove("web"));
    BOOST_TEST(world.hub.at("m2").held.empty());
    BOOST_TEST(world.hub.at("m1").held.size() == 2u);
    BOOST_TEST(world.contents().deletions.size() == 2u);
    world.restart();
    world.hub.script(nullptr);
    world.reaper().wake();
    BOOST_TEST(eventually([&] { return world.contents().deletions.empty(); }),
               "a restart forgets no deletion");
    BOOST_TEST(world.hub.at("m1").held.empty());
    BOOST_TEST(refused >= 1);
}

BOOST_AUTO_TEST_CASE(a_deletion_of_what_is_gone_is_done)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web")));
    world.hub.script(failing<DeleteRegion>(ErrorCode::kNotFound));
    require_done(world.vnodes().remove("web"));
    BOOST_TEST(world.contents().deletions.empty());
}

BOOST_AUTO_TEST_CASE(a_crash_during_creation_is_undone_by_the_next_controller)
{
    World world;
    world.add_usual();
    Gate<CreateRegion> gate{world.hub};
    Thread creating{"creating", [&] { static_cast<void>(world.vnodes().create(World::vnode_body("web"))); }};
    gate.await();
    // What a kill -9 now would leave behind.
    const auto contents = world.contents();
    BOOST_TEST((contents.vnodes.at("web").state == VnodeState::kCreating));
    BOOST_TEST(state_of(world, "web") == "creating");
    check_kind(world.vnodes().create(World::vnode_body("web")), Problem::Kind::kBusy);
    check_kind(world.vnodes().start("web"), Problem::Kind::kBusy);
    check_kind(world.vnodes().remove("web"), Problem::Kind::kBusy);
    gate.open();
    creating.join();
    require_ok(world.catalog().update([&](Draft& draft) -> Status {
        draft.put(contents.vnodes.at("web"));
        return {};
    }));
    world.restart();
    BOOST_TEST(world.contents().vnodes.empty());
    world.reaper().wake();
    BOOST_TEST(eventually([&] { return world.contents().deletions.empty(); }));
    check_empty(world);
}

BOOST_AUTO_TEST_CASE(a_start_that_fails_can_be_tried_again)
{
    World world;
    world.add_usual();
    require_done(world.volumes().create(World::volume_body("root")));
    require_done(world.vnodes().create(
        World::vnode_body("web").set("volumes", Json::Array{Json::object().set("name", "root")})));
    for (const auto& script : {failing<CreateRegion>(ErrorCode::kIo), failing<SetVolumeEpoch>(ErrorCode::kIo),
                               failing<StartVnode>(ErrorCode::kIo)}) {
        world.hub.script(script);
        const auto refused = world.vnodes().start("web");
        check_kind(refused, Problem::Kind::kFailed);
        BOOST_TEST(refused.problem().detail == "vNode 'web' was not started: the fake says no");
        BOOST_TEST(state_of(world, "web") == "failed");
        BOOST_TEST(contains(world.vnodes().show("web")->text("reason"), "not started: the fake says no"));
        BOOST_TEST(world.hub.at("p1").vmms.empty());
        world.hub.script(nullptr);
        require_done(world.vnodes().start("web"));
        BOOST_TEST(world.hub.at("m1").held.size() == 2u);
        require_done(world.vnodes().stop("web", {}));
    }
}

BOOST_AUTO_TEST_CASE(a_start_whose_answer_is_lost_is_taken_back)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web")));
    world.hub.script(
        [&](const std::string& name, const Command& command) -> std::optional<Result<std::string>> {
            if (!std::holds_alternative<StartVnode>(command)) return std::nullopt;
            static_cast<void>(world.hub.obey(name, command));
            return Result<std::string>{Error{ErrorCode::kTimeout, "no answer"}};
        });
    check_kind(world.vnodes().start("web"), Problem::Kind::kTimeout);
    BOOST_TEST(world.hub.at("p1").vmms.empty());
    BOOST_TEST(state_of(world, "web") == "failed");
}

BOOST_AUTO_TEST_CASE(create_with_start_keeps_the_vnode_that_does_not_start)
{
    World world;
    world.add_usual();
    world.hub.script(failing<StartVnode>(ErrorCode::kIo));
    check_kind(world.vnodes().create(World::vnode_body("web").set("start", true)), Problem::Kind::kFailed);
    BOOST_TEST(state_of(world, "web") == "failed");
    world.hub.script(nullptr);
    require_done(world.vnodes().remove("web"));
    check_empty(world);
}

BOOST_AUTO_TEST_CASE(what_cannot_be_placed_is_explained)
{
    World world;
    const auto none = world.vnodes().create(World::vnode_body("web"));
    check_kind(none, Problem::Kind::kNoRoom);
    BOOST_TEST(none.problem().reasons == std::vector<std::string>{"no pComponent is enrolled"},
               boost::test_tools::per_element());
    world.add_processor("p1", 4, 64 * kMiB);
    const auto no_memory = world.vnodes().create(World::vnode_body("web"));
    check_kind(no_memory, Problem::Kind::kNoRoom);
    BOOST_TEST(no_memory.problem().reasons == std::vector<std::string>{"no mComponent is enrolled"},
               boost::test_tools::per_element());
    world.add_memory("m1", 100 * kMiB);
    const auto little = world.vnodes().create(World::vnode_body("web"));
    check_kind(little, Problem::Kind::kNoRoom);
    BOOST_TEST(little.problem().reasons ==
                   std::vector<std::string>{"m1: 36 MiB left, 64 MiB needed for each vRegion"},
               boost::test_tools::per_element());
    const auto vcpus = world.vnodes().create(World::vnode_body("web", "64M").set("vcpus", 5));
    BOOST_TEST(vcpus.problem().reasons == std::vector<std::string>{"p1: 4 vCPUs free, 5 needed"},
               boost::test_tools::per_element());
    BOOST_TEST(world.contents().last_id == 0u, "a refused request takes no number");
    require_done(world.vnodes().create(World::vnode_body("web", "64M").set("vcpus", 3)));
    check_kind(world.vnodes().create(World::vnode_body("two", "64M").set("vcpus", 2)),
               Problem::Kind::kNoRoom);
}

BOOST_AUTO_TEST_CASE(room_is_given_away_once)
{
    World world;
    world.add_processor("p1", 64, 4 * kGiB);
    world.add_memory("m1", 10 * World::kRegionBytes);
    std::atomic<int> created = 0;
    {
        std::vector<Thread> threads;
        for (int i = 0; i < 8; ++i) {
            threads.emplace_back("create", [&world, &created, i] {
                if (world.vnodes().create(World::vnode_body("n" + std::to_string(i)))) ++created;
            });
        }
    }
    BOOST_TEST(created == 5, "each takes two of ten");
    BOOST_TEST(world.hub.at("m1").held.size() == 10u);
    BOOST_TEST(world.contents().vnodes.size() == 5u);
}

BOOST_AUTO_TEST_CASE(names_are_taken_once)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web")));
    const auto again = world.vnodes().create(World::vnode_body("web"));
    check_kind(again, Problem::Kind::kExists);
    BOOST_TEST(again.problem().detail == "there is a vNode 'web' already");
    require_done(world.volumes().create(World::volume_body("web")));
    check_kind(world.volumes().create(World::volume_body("web")), Problem::Kind::kExists);
    BOOST_TEST(world.hub.at("s1").held.size() == 1u);
    BOOST_TEST(world.hub.at("m1").held.size() == 2u);
}

BOOST_AUTO_TEST_CASE(a_volume_belongs_to_one_vnode_and_stays_as_long)
{
    World world;
    world.add_usual();
    require_done(world.volumes().create(World::volume_body("root")));
    const Json disks{Json::Array{Json::object().set("name", "root")}};
    require_done(world.vnodes().create(World::vnode_body("web").set("volumes", disks)));
    BOOST_TEST(world.volumes().show("root")->text("attached_to") == "web");
    const auto removed = world.volumes().remove("root");
    check_kind(removed, Problem::Kind::kInUse);
    BOOST_TEST(removed.problem().detail == "volume 'root' belongs to vNode 'web'");
    check_kind(world.vnodes().create(World::vnode_body("two").set("volumes", disks)), Problem::Kind::kInUse);
    const Json missing{Json::Array{Json::object().set("name", "nothing")}};
    check_kind(world.vnodes().create(World::vnode_body("two").set("volumes", missing)),
               Problem::Kind::kNotFound);
    require_done(world.vnodes().remove("web"));
    require_done(world.volumes().remove("root"));
    check_kind(world.volumes().remove("root"), Problem::Kind::kNotFound);
    BOOST_TEST(world.hub.at("s1").held.empty());
}

BOOST_AUTO_TEST_CASE(a_volume_that_cannot_be_created_leaves_nothing)
{
    World world;
    world.add_storage("s1", 64 * kMiB);
    const auto image = world.volumes().create(World::volume_body("root").set("image", "missing"));
    check_kind(image, Problem::Kind::kNotFound);
    BOOST_TEST(image.problem().reasons == std::vector<std::string>{"available: debian"},
               boost::test_tools::per_element());
    const auto large = world.volumes().create(World::volume_body("root", "65M"));
    check_kind(large, Problem::Kind::kNoRoom);
    BOOST_TEST(large.problem().reasons == std::vector<std::string>{"s1: 64 MiB free, 65 MiB needed"},
               boost::test_tools::per_element());
    world.hub.script(failing<CreateVolume>(ErrorCode::kIo));
    check_kind(world.volumes().create(World::volume_body("root")), Problem::Kind::kFailed);
    BOOST_TEST(world.contents().volumes.empty());
    BOOST_TEST(world.contents().deletions.empty());

    world.hub.script(nullptr);
    Gate<CreateVolume> gate{world.hub};
    Thread creating{"creating",
                    [&] { static_cast<void>(world.volumes().create(World::volume_body("root"))); }};
    gate.await();
    const VolumeRecord half = world.contents().volumes.at("root");
    BOOST_TEST(!half.ready);
    BOOST_TEST(world.volumes().show("root")->text("state") == "creating");
    check_kind(world.volumes().remove("root"), Problem::Kind::kBusy);
    world.add_usual();
    check_kind(world.vnodes().create(
                   World::vnode_body("web").set("volumes", Json::Array{Json::object().set("name", "root")})),
               Problem::Kind::kNotFound);
    gate.open();
    creating.join();
    require_ok(world.catalog().update([&](Draft& draft) -> Status {
        draft.put(half);
        return {};
    }));
    world.restart();
    BOOST_TEST(world.contents().volumes.empty(), "what a crash left half-created is undone");
    world.reaper().wake();
    BOOST_TEST(eventually([&] { return world.hub.at("s1").held.empty(); }));
}

BOOST_AUTO_TEST_CASE(components_that_are_away_are_named)
{
    World world;
    world.add_usual();
    require_done(world.volumes().create(World::volume_body("root")));
    require_done(world.vnodes().create(
        World::vnode_body("web").set("volumes", Json::Array{Json::object().set("name", "root")})));
    world.hub.connect("s1", false);
    const auto no_storage = world.vnodes().start("web");
    check_kind(no_storage, Problem::Kind::kUnavailable);
    BOOST_TEST(no_storage.problem().detail == "sComponent s1 with volume 'root' is not connected");
    BOOST_TEST(world.volumes().show("root")->text("state") == "unreachable");
    world.hub.connect("s1", true);
    world.hub.connect("m1", false);
    const auto no_memory = world.vnodes().start("web");
    check_kind(no_memory, Problem::Kind::kNoRoom);
    BOOST_TEST(no_memory.problem().reasons == std::vector<std::string>{"m1: not connected"},
               boost::test_tools::per_element());
    BOOST_TEST(state_of(world, "web") == "stopped", "a start that did not begin changes nothing");
    world.hub.connect("m1", true);
    world.hub.connect("p1", false);
    check_kind(world.vnodes().start("web"), Problem::Kind::kNoRoom);
    world.add_processor("p2");
    require_done(world.vnodes().start("web"));
    BOOST_TEST(world.vnodes().show("web")->text("pcomponent") == "p2");
}

BOOST_AUTO_TEST_CASE(replicas_move_away_from_a_lost_mcomponent_at_the_next_start)
{
    World world;
    world.add_processor("p1");
    world.add_memory("m1");
    world.add_memory("m2");
    require_done(world.vnodes().create(World::vnode_body("web").set("memory_copies", 2)));
    world.hub.connect("m2", false);
    check_kind(world.vnodes().start("web"), Problem::Kind::kNoRoom);
    world.add_memory("m3");
    require_done(world.vnodes().start("web"));
    BOOST_TEST(world.hub.at("m3").held.size() == 2u);
    BOOST_TEST(world.hub.at("m1").held.size() == 2u);
    BOOST_TEST(world.hub.at("m2").held.size() == 2u, "it cannot be told yet");
    world.hub.connect("m2", true);
    world.reaper().wake();
    BOOST_TEST(eventually([&] { return world.hub.at("m2").held.empty(); }));
}

BOOST_AUTO_TEST_CASE(a_vnode_whose_pcomponent_is_away_can_be_fenced_off)
{
    World world;
    world.add_usual();
    require_done(world.volumes().create(World::volume_body("root")));
    require_done(world.vnodes().create(World::vnode_body("web")
                                           .set("volumes", Json::Array{Json::object().set("name", "root")})
                                           .set("start", true)));
    const Epoch before = world.contents().vnodes.at("web").epoch;
    const auto regions_before = world.hub.at("m1").held;
    world.hub.connect("p1", false);
    BOOST_TEST(state_of(world, "web") == "unknown");
    const auto refused = world.vnodes().stop("web", {});
    check_kind(refused, Problem::Kind::kUnavailable);
    BOOST_TEST(contains(refused.problem().detail, "a forced stop fences the vNode off"));

    world.hub.script(failing<SetVolumeEpoch>(ErrorCode::kTimeout));
    check_kind(world.vnodes().stop("web", {0, true}), Problem::Kind::kTimeout);
    BOOST_TEST(state_of(world, "web") == "unknown", "not fenced off is not stopped");
    world.hub.script(nullptr);
    require_done(world.vnodes().stop("web", {0, true}));
    BOOST_TEST(state_of(world, "web") == "stopped");
    BOOST_TEST((world.hub.at("s1").epochs.begin()->second > before), "the old VMM's writes are refused");
    for (const auto& [region, size] : regions_before) BOOST_TEST(!world.hub.at("m1").held.contains(region));
    world.add_processor("p2");
    require_done(world.vnodes().start("web"));
    BOOST_TEST(world.hub.at("p2").vmms.contains("web"));
}

BOOST_AUTO_TEST_CASE(a_stop_that_fails_does_not_hide_an_end)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web").set("start", true)));
    world.hub.script(failing<StopVnode>(ErrorCode::kTimeout));
    check_kind(world.vnodes().stop("web", {}), Problem::Kind::kTimeout);
    BOOST_TEST(state_of(world, "web") == "running");
    BOOST_TEST(contains(world.vnodes().show("web")->text("reason"), "not stopped"));
    world.hub.script([&](const std::string&, const Command& command) -> std::optional<Result<std::string>> {
        if (!std::holds_alternative<StopVnode>(command)) return std::nullopt;
        require_ok(world.vnodes().note_exit({"p1", "web", world.contents().vnodes.at("web").epoch, 137, ""}));
        return Result<std::string>{Error{ErrorCode::kTimeout, "no answer"}};
    });
    check_kind(world.vnodes().stop("web", {}), Problem::Kind::kTimeout);
    BOOST_TEST(state_of(world, "web") == "stopped");
}

BOOST_AUTO_TEST_CASE(an_exit_means_what_its_status_says)
{
    World world;
    world.add_usual();
    require_done(world.vnodes().create(World::vnode_body("web")));
    const auto after = [&world](int status, const std::string& reason) {
        require_done(world.vnodes().start("web"));
        const Epoch epoch = world.contents().vnodes.at("web").epoch;
        require_ok(world.vnodes().note_exit({"p1", "web", Epoch{epoch.value() - 1}, 10, "old"}));
        require_ok(world.vnodes().note_exit({"p9", "web", epoch, 10, "elsewhere"}));
        require_ok(world.vnodes().note_exit({"p1", "other", epoch, 10, "unknown"}));
        BOOST_TEST(state_of(world, "web") == "running", "reports of other runs change nothing");
        require_ok(world.vnodes().note_exit({"p1", "web", epoch, status, reason}));
        require_ok(world.vnodes().note_exit({"p1", "web", epoch, 12, "told twice"}));
        const auto shown = world.vnodes().show("web");
        return shown->text("state") + ", " + shown->text("reason");
    };
    BOOST_TEST(after(0, "") == "stopped, powered off by the guest");
    BOOST_TEST(after(3, "") == "stopped, reset by the guest, which is not to reboot");
    BOOST_TEST(after(10, "triple fault") == "failed, the guest crashed: triple fault");
    BOOST_TEST(after(11, "m1") == "failed, memory lost: m1");
    BOOST_TEST(after(12, "") == "failed, fenced");
    BOOST_TEST(after(137, "") == "failed, vnode-vmm was ended by signal 9 (Killed)");
    BOOST_TEST(after(1, "no /dev/kvm") == "failed, vnode-vmm exited with status 1: no /dev/kvm");
    BOOST_TEST(after(-1, "") == "failed, vnode-vmm has ended");
    BOOST_TEST(after(255, "") == "failed, vnode-vmm exited with status 255");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
