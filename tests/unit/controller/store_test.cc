#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "base/text.h"
#include "controller/api/tokens.h"
#include "controller/model/catalog.h"
#include "tests/unit/controller/checks.h"
#include "tests/fakes/temporary_directory.h"

namespace splitvisor::controller {

namespace {

std::unique_ptr<MetaStore> open_store(const std::string& path)
{
    auto store = open_sqlite_store(path);
    require_ok(store);
    return std::move(*store);
}

std::unique_ptr<Catalog> load(MetaStore& store)
{
    auto catalog = Catalog::load(store);
    require_ok(catalog);
    return std::move(*catalog);
}

void write_file(const std::string& path, const std::string& text)
{
    std::ofstream{path, std::ios::binary | std::ios::trunc} << text;
}

void run_sql(const std::string& path, const char* sql)
{
    sqlite3* database = nullptr;
    BOOST_REQUIRE(::sqlite3_open(path.c_str(), &database) == SQLITE_OK);
    BOOST_TEST(::sqlite3_exec(database, sql, nullptr, nullptr, nullptr) == SQLITE_OK);
    ::sqlite3_close(database);
}

VnodeRecord full_vnode()
{
    VnodeRecord record;
    record.name = "web";
    record.memory = ByteCount{512 * kMiB};
    record.excache = ByteCount{128 * kMiB};
    record.vcpus = 3;
    record.kernel = "vmlinuz";
    record.initrd = "initrd";
    record.cmdline = "root=/dev/vda \"quoted\"";
    record.mechanism = "move";
    record.memory_copies = 2;
    record.disks = {{"root", false}, {"data", true}};
    record.nets = {{"tap0", "52:54:00:00:00:01"}};
    record.pcomponent = "p1";
    record.regions = {
        {ByteCount{kGiB},
         {{"m1", RegionId{7}, new_capability(), false}, {"m2", RegionId{~0ull}, new_capability(), true}}}};
    record.epoch = Epoch{42};
    record.state = VnodeState::kFailed;
    record.reason = "memory lost: m2";
    record.created_s = 1;
    record.changed_s = 2;
    return record;
}

/// Adds one vNode and its deletion records in one transaction after the other, tells each through the
/// descriptor, and never ends by itself.
[[noreturn]] void write_for_ever(const std::string& path, int told)
{
    auto store = open_sqlite_store(path);
    if (!store) ::_exit(1);
    auto catalog = Catalog::load(**store);
    if (!catalog) ::_exit(1);
    for (;;) {
        std::uint64_t id = 0;
        const auto updated = (*catalog)->update([&id](Draft& draft) -> Status {
            id = draft.new_id();
            VnodeRecord record;
            record.name = "n" + std::to_string(id);
            record.epoch = draft.new_epoch();
            draft.put(record);
            draft.put(DeletionRecord{id, DeletionRecord::What::kRegion, record.name, ByteCount{id}});
            return {};
        });
        if (!updated || ::write(told, &id, sizeof id) != sizeof id) ::_exit(1);
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(store)

BOOST_AUTO_TEST_CASE(keys_are_written_read_and_guarded)
{
    const fakes::TemporaryDirectory directory;
    const auto store = open_store(directory / "state.db");
    const std::array first = {Change{"a/1", "one"}, Change{"a/2", "two"},
                              Change{"b/1", std::string{"nu\0ll", 5}}};
    require_ok(store->commit({}, first));
    BOOST_TEST(store->get("a/1").value()->value == "one");
    BOOST_TEST(store->get("b/1").value()->value.size() == 5u);
    BOOST_TEST(!store->get("c").value().has_value());
    const auto range = store->range("a/");
    require_ok(range);
    BOOST_REQUIRE(range->size() == 2u);
    BOOST_TEST((*range)[1].key == "a/2");
    const std::uint64_t revision = (*range)[0].revision;
    BOOST_TEST(revision > 0u);

    const std::array guards = {Guard{"a/1", revision}, Guard{"new", 0}};
    const std::array second = {Change{"a/1", "uno"}, Change{"a/2", std::nullopt}};
    require_ok(store->commit(guards, second));
    BOOST_TEST(store->get("a/1").value()->revision > revision);
    BOOST_TEST(!store->get("a/2").value().has_value());
    check_code(store->commit(guards, first), ErrorCode::kStale);
    BOOST_TEST(store->get("a/1").value()->value == "uno", "a refused commit changes nothing");
    BOOST_TEST(!store->get("a/2").value().has_value());
    const std::array absent = {Guard{"a/1", 0}};
    check_code(store->commit(absent, first), ErrorCode::kStale);
}

BOOST_AUTO_TEST_CASE(a_restart_keeps_everything)
{
    const fakes::TemporaryDirectory directory;
    const VolumeRecord volume{"root", VolumeId{9}, ByteCount{kGiB}, "debian", "s1", new_capability(), true,
                              5};
    const ComponentRecord component{"s1", ComponentKind::kStorage, "tcp:[::1]:7901", ~0ull};
    const DeletionRecord deletion{8, DeletionRecord::What::kVolume, "s1", ByteCount{4096}};
    const VnodeRecord vnode = full_vnode();
    std::uint64_t last_id = 0;
    Epoch last_epoch;
    {
        const auto store = open_store(directory / "state.db");
        const auto catalog = load(*store);
        require_ok(catalog->update([&](Draft& draft) -> Status {
            for (int i = 0; i < 100; ++i) last_id = draft.new_id();
            last_epoch = draft.new_epoch();
            draft.put(vnode);
            draft.put(volume);
            draft.put(component);
            draft.put(deletion);
            return {};
        }));
    }
    const auto store = open_store(directory / "state.db");
    const auto catalog = load(*store);
    catalog->read([&](const Contents& contents) {
        BOOST_TEST((contents.vnodes.at("web") == vnode));
        BOOST_TEST((contents.volumes.at("root") == volume));
        BOOST_TEST((contents.components.at("s1") == component));
        BOOST_TEST((contents.deletions.at(8) == deletion));
        BOOST_TEST(contents.user_of("data")->name == "web");
        BOOST_TEST(contents.user_of("other") == nullptr);
        BOOST_TEST(contents.allocated_on("s1").value() == kGiB + 4096);
        BOOST_TEST(contents.allocated_on("m1").value() == kGiB);
    });
    require_ok(catalog->update([&](Draft& draft) -> Status {
        BOOST_TEST(draft.new_id() == last_id + 1, "an id is never given again");
        BOOST_TEST((draft.new_epoch() > last_epoch));
        return {};
    }));
}

BOOST_AUTO_TEST_CASE(a_refused_draft_leaves_no_trace)
{
    const fakes::TemporaryDirectory directory;
    const auto store = open_store(directory / "state.db");
    const auto catalog = load(*store);
    const auto refused = catalog->update([](Draft& draft) -> Status {
        draft.put(full_vnode());
        static_cast<void>(draft.new_id());
        BOOST_TEST(draft.vnode("web") != nullptr, "the draft sees its own changes");
        return Error{ErrorCode::kNoRoom, "no"};
    });
    check_code(refused, ErrorCode::kNoRoom);
    BOOST_TEST(catalog->read(
        [](const Contents& contents) { return contents.vnodes.empty() && contents.last_id == 0; }));
    BOOST_TEST(store->range("").value().empty());
}

// SIGKILL at any moment: each transaction is there whole or not at all, and none that was told is missing.
BOOST_AUTO_TEST_CASE(a_kill_between_commits_leaves_a_consistent_catalogue)
{
    for (std::uint64_t round = 0; round < 6; ++round) {
        const fakes::TemporaryDirectory directory;
        int told[2];
        BOOST_REQUIRE(::pipe2(told, O_CLOEXEC) == 0);
        const pid_t child = ::fork();
        BOOST_REQUIRE(child >= 0);
        if (child == 0) write_for_ever(directory / "state.db", told[1]);
        ::close(told[1]);
        std::uint64_t last = 0;
        std::uint64_t id = 0;
        const std::uint64_t enough = 3 + 7 * round;
        while (last < enough && ::read(told[0], &id, sizeof id) == sizeof id) last = id;
        ::kill(child, SIGKILL);
        while (::read(told[0], &id, sizeof id) == sizeof id) last = id;
        ::close(told[0]);
        int status = 0;
        BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
        BOOST_TEST(WIFSIGNALED(status));
        BOOST_TEST(last >= enough);

        const auto store = open_store(directory / "state.db");
        const auto catalog = load(*store);
        catalog->read([last](const Contents& contents) {
            BOOST_TEST(contents.last_id >= last);
            BOOST_TEST(contents.last_id <= last + 1, "one commit can have been made and not told");
            BOOST_TEST(contents.last_epoch == contents.last_id);
            BOOST_TEST(contents.vnodes.size() == contents.last_id);
            BOOST_TEST(contents.deletions.size() == contents.last_id);
            for (const auto& [number, deletion] : contents.deletions) {
                BOOST_TEST(contents.vnodes.contains(deletion.component));
                BOOST_TEST(deletion.size.value() == number);
            }
        });
    }
}

BOOST_AUTO_TEST_CASE(a_file_that_is_no_database_is_told_by_name)
{
    const fakes::TemporaryDirectory directory;
    const std::string path = directory / "state.db";
    write_file(path, std::string(64 * 1024, 'x'));
    const auto opened = open_sqlite_store(path);
    check_code(opened, ErrorCode::kCorrupt);
    BOOST_TEST(contains(opened.error().message(), path), opened.error().message());
    BOOST_TEST(contains(opened.error().message(), "not a database"), opened.error().message());
    BOOST_TEST(!contains(opened.error().message(), "\n"));

    const auto no_folder = open_sqlite_store(directory / "missing/state.db");
    check_code(no_folder, ErrorCode::kIo);
    BOOST_TEST(contains(no_folder.error().message(), "missing/state.db"), no_folder.error().message());
}

BOOST_AUTO_TEST_CASE(a_damaged_database_is_an_error_and_not_an_empty_catalogue)
{
    const fakes::TemporaryDirectory directory;
    const std::string path = directory / "state.db";
    {
        const auto store = open_store(path);
        const auto catalog = load(*store);
        for (int i = 0; i < 200; ++i) {
            require_ok(catalog->update([i](Draft& draft) -> Status {
                VnodeRecord record = full_vnode();
                record.name += std::to_string(i);
                draft.put(std::move(record));
                return {};
            }));
        }
    }
    const auto size = static_cast<off_t>(std::filesystem::file_size(path));
    BOOST_REQUIRE(size > 64 * 1024);
    {
        std::fstream file{path, std::ios::binary | std::ios::in | std::ios::out};
        const std::string garbage(32 * 1024, '\xee');
        file.seekp(4096);
        file << garbage;
    }
    const auto store = open_sqlite_store(path);
    if (store) {
        const auto catalog = Catalog::load(**store);
        check_code(catalog, ErrorCode::kCorrupt);
    } else {
        check_code(store, ErrorCode::kCorrupt);
    }
}

BOOST_AUTO_TEST_CASE(a_newer_schema_is_refused)
{
    const fakes::TemporaryDirectory directory;
    const std::string path = directory / "state.db";
    {
        const auto store = open_store(path);
    }
    run_sql(path, "PRAGMA user_version = 99");
    const auto opened = open_sqlite_store(path);
    check_code(opened, ErrorCode::kUnsupported);
    BOOST_TEST(contains(opened.error().message(), path), opened.error().message());
    BOOST_TEST(contains(opened.error().message(), "schema version 99"), opened.error().message());
    run_sql(path, "PRAGMA user_version = 1");
    require_ok(open_sqlite_store(path));
}

BOOST_AUTO_TEST_CASE(records_that_are_not_ours_are_told_by_key)
{
    const auto problem = [](const std::string& key, const std::string& value) {
        const fakes::TemporaryDirectory directory;
        const auto store = open_store(directory / "state.db");
        const std::array changes = {Change{key, value}};
        require_ok(store->commit({}, changes));
        const auto catalog = Catalog::load(*store);
        BOOST_REQUIRE(!catalog.ok());
        return catalog.error().message();
    };
    BOOST_TEST(contains(problem("vnode/web", "{"), "vnode/web"));
    BOOST_TEST(contains(problem("vnode/web", "{}"), "vnode/web"));
    BOOST_TEST(contains(problem("vnode/web", R"({"name":"web","state":"dreaming"})"), "vnode/web"));
    BOOST_TEST(contains(problem("volume/root", "7"), "volume/root"));
    BOOST_TEST(contains(problem("component/m1", R"({"name":"m1","kind":"cloud"})"), "component/m1"));
    BOOST_TEST(contains(problem("deletion/1", R"({"number":1,"what":"all"})"), "deletion/1"));
    BOOST_TEST(contains(problem("last-id", "many"), "last-id"));
}

BOOST_AUTO_TEST_CASE(tokens_are_made_once_and_kept_as_hashes)
{
    const fakes::TemporaryDirectory directory;
    const std::string path = directory / "admin-token";
    const auto store = open_store(directory / "state.db");
    const auto token = Token::load(*store, "admin", path);
    require_ok(token);
    auto secret = read_file(path, ByteCount{kKiB});
    require_ok(secret);
    BOOST_TEST(secret->ends_with('\n'));
    secret->pop_back();
    BOOST_TEST(secret->size() == 64u);
    BOOST_TEST((std::filesystem::status(path).permissions() == std::filesystem::perms{0600}));
    BOOST_TEST(token->matches(*secret));
    for (const std::string& wrong : {std::string{}, secret->substr(1), *secret + "a", *secret + "\n"}) {
        BOOST_TEST(!token->matches(wrong));
    }
    BOOST_TEST(!contains(store->get("token/admin").value()->value, *secret));
    std::filesystem::remove(path);
    const auto again = Token::load(*store, "admin", path);
    require_ok(again);
    BOOST_TEST(again->matches(*secret));
    BOOST_TEST(!std::filesystem::exists(path), "nothing is written a second time");
    const auto other = Token::load(*store, "enrol", directory / "enrol-token");
    require_ok(other);
    BOOST_TEST(!other->matches(*secret));

    const std::array changes = {Change{"token/admin", "zz"}};
    require_ok(store->commit({}, changes));
    check_code(Token::load(*store, "admin", path), ErrorCode::kCorrupt);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
