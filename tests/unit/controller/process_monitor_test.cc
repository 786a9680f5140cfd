#include "controller/pcomponentd/process_monitor.h"

#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>

#include "base/fd.h"
#include "base/text.h"
#include "controller/pcomponentd/run_dir.h"
#include "controller/pcomponentd/vmm_socket.h"
#include "tests/fakes/temporary_directory.h"
#include "tests/unit/controller/checks.h"
#include "tests/unit/controller/programs.h"

namespace splitvisor::controller {

namespace {

/// Notes what the process monitor reports. Thread-safe.
class FakeAgent final : public wire::Agent {
  public:
    void report_vnode_exit(const std::string& name, Epoch epoch, int exit_status,
                           const std::string& reason) override
    {
        const std::lock_guard lock{mutex_};
        reports_.push_back(name + " " + std::to_string(epoch.value()) + " " + std::to_string(exit_status) +
                           " " + reason);
    }
    [[nodiscard]] std::vector<std::string> reports() const
    {
        const std::lock_guard lock{mutex_};
        return reports_;
    }

  private:
    mutable std::mutex mutex_;
    std::vector<std::string> reports_;
};

/// A pComponent whose VMMs are fake ones.
class Host {
  public:
    Host()
    {
        std::filesystem::create_directory(directory / "kernels");
        std::ofstream{directory / "kernels/vmlinuz"} << "kernel";
        std::ofstream{directory / "kernels/initrd"} << "initrd";
        std::filesystem::create_directory(directory / "kernels/folder");
        start();
    }

    void start()
    {
        ProcessMonitorOptions options;
        options.run_dir = directory / "run";
        options.kernels_dir = directory / "kernels";
        options.vmm = built("tests/unit/controller/fake-vmm");
        options.keeper = built("controller/vnode-keeper");
        options.vcpus = 4;
        options.memory = ByteCount{kGiB};
        options.start_ms = start_ms;
        auto monitor = ProcessMonitor::create(std::move(options));
        require_ok(monitor);
        monitor_ = std::move(*monitor);
        monitor_->report_to(&agent);
    }
    /// pcomponentd has ended.
    void stop() { monitor_.reset(); }
    void restart()
    {
        stop();
        start();
    }

    [[nodiscard]] ProcessMonitor& monitor() { return *monitor_; }
    Status start_vnode(const std::string& name, std::uint64_t epoch = 1, const std::string& behaviour = "")
    {
        return monitor_->start_vnode(name, spec(epoch, behaviour).dump());
    }
    static Json spec(std::uint64_t epoch, const std::string& behaviour)
    {
        Json spec = Json::object();
        spec.set("name", "web").set("epoch", epoch).set("excache_bytes", 16 * kMiB).set("kernel", "vmlinuz");
        return spec.set("cmdline", behaviour);
    }
    /// "name epoch state" of each VMM.
    [[nodiscard]] std::vector<std::string> vmms() const
    {
        std::vector<std::string> all;
        const Json now = detail();
        for (const Json& vnode : now.elements("vnodes")) {
            all.push_back(vnode.text("name") + " " + std::to_string(vnode.number("epoch")) + " " +
                          vnode.text("state"));
        }
        return all;
    }
    [[nodiscard]] pid_t pid() const
    {
        return static_cast<pid_t>(detail().elements("vnodes").at(0).number("pid"));
    }
    [[nodiscard]] Json detail() const
    {
        auto json = Json::parse(monitor_->usage().detail_json);
        require_ok(json);
        return std::move(*json);
    }
    [[nodiscard]] std::string file(const std::string& name) const { return directory / ("run/" + name); }

    fakes::TemporaryDirectory directory;
    FakeAgent agent;
    std::uint64_t start_ms = 60'000;

  private:
    std::unique_ptr<ProcessMonitor> monitor_;
};

bool is_alive(pid_t pid)
{
    return start_time_of(pid) != 0;
}

pid_t parent_of(pid_t pid)
{
    const auto text = read_file("/proc/" + std::to_string(pid) + "/stat", ByteCount{4096});
    require_ok(text);
    std::istringstream rest{text->substr(text->rfind(')') + 1)};
    std::string state;
    pid_t parent = 0;
    rest >> state >> parent;
    return parent;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(process_monitor)

BOOST_AUTO_TEST_CASE(a_vmm_is_started_asked_and_stopped)
{
    Host host;
    BOOST_TEST(host.detail().texts("kernels") == (std::vector<std::string>{"initrd", "vmlinuz"}),
               boost::test_tools::per_element());
    require_ok(host.start_vnode("web", 7));
    BOOST_TEST(host.vmms() == std::vector<std::string>{"web 7 running"}, boost::test_tools::per_element());
    BOOST_TEST(host.monitor().usage().used.value() == 16 * kMiB);
    const auto config = read_file(host.file("web/config.json"), ByteCount{kMiB});
    require_ok(config);
    BOOST_TEST(contains(*config, (host.directory / "kernels/vmlinuz")));
    BOOST_TEST(
        (std::filesystem::status(host.file("web/config.json")).permissions() == std::filesystem::perms{0600}),
        "it holds capabilities");
    const auto answer = host.monitor().control_vnode("web", R"({"command":"status"})");
    require_ok(answer);
    BOOST_TEST(*answer == R"({"ok":true,"state":"running"})");
    const auto console = host.monitor().open_console("web");
    require_ok(console);
    BOOST_REQUIRE(::write(console->get(), "hello\n", 6) == 6);
    std::string echoed(6, '\0');
    BOOST_REQUIRE(::read(console->get(), echoed.data(), 6) == 6);
    BOOST_TEST(echoed == "hello\n");

    check_code(host.monitor().forget_vnode("web"), ErrorCode::kExists);
    const pid_t pid = host.pid();
    require_ok(host.monitor().stop_vnode("web", 60'000));
    BOOST_TEST(eventually([pid] { return !is_alive(pid); }));
    BOOST_TEST(host.vmms().empty());
    BOOST_TEST(host.agent.reports().empty(), "a stop that was asked for is no news");
    check_code(host.monitor().control_vnode("web", "{}"), ErrorCode::kNotFound);
    check_code(host.monitor().open_console("web"), ErrorCode::kNotFound);
    require_ok(host.monitor().stop_vnode("web", 0));
    require_ok(host.monitor().forget_vnode("web"));
    BOOST_TEST(!std::filesystem::exists(host.file("web")));
    require_ok(host.monitor().forget_vnode("web"));
}

// A VMM that ends takes its sockets away, and its keeper puts a file in place, at the same time.
BOOST_AUTO_TEST_CASE(a_run_dir_is_removed_while_others_put_it_in_order)
{
    const fakes::TemporaryDirectory directory;
    const auto path = directory / "web";
    std::atomic<bool> over{false};
    std::thread other{[&] {
        while (!over) {
            for (const auto* name : {"/a", "/b", "/c"}) std::ofstream{path + name};
            for (const auto* name : {"/a", "/b", "/c"}) ::unlink((path + name).c_str());
        }
    }};
    Status removed;
    for (int round = 0; round < 300 && removed; ++round) {
        std::filesystem::create_directories(path);
        removed = RunDir{path}.remove();
        if (std::filesystem::exists(path)) removed = Error{ErrorCode::kExists, "it is still there"};
    }
    over = true;
    other.join();
    require_ok(removed);
}

BOOST_AUTO_TEST_CASE(a_start_may_be_repeated)
{
    Host host;
    require_ok(host.start_vnode("web", 7));
    const pid_t pid = host.pid();
    require_ok(host.start_vnode("web", 7));
    BOOST_TEST(host.pid() == pid);
    const auto other = host.start_vnode("web", 8);
    check_code(other, ErrorCode::kExists);
    BOOST_TEST(contains(other.error().message(), "still runs with epoch 7"));
    require_ok(host.monitor().stop_vnode("web", 0));
    require_ok(host.start_vnode("web", 8));
    require_ok(host.monitor().stop_vnode("web", 0));
}

BOOST_AUTO_TEST_CASE(what_is_no_name_of_ours_reaches_no_file)
{
    Host host;
    for (const std::string name : {"", "..", "../web", "a/b", "Web", "web\n"}) {
        check_code(host.start_vnode(name), ErrorCode::kInvalid);
        check_code(host.monitor().stop_vnode(name, 0), ErrorCode::kInvalid);
        check_code(host.monitor().forget_vnode(name), ErrorCode::kInvalid);
    }
    const auto start = [&host](const std::string& member, const std::string& value) {
        Json spec = Host::spec(1, "");
        spec.set(member, value);
        return host.monitor().start_vnode("web", spec.dump());
    };
    check_code(start("kernel", "missing"), ErrorCode::kNotFound);
    check_code(start("kernel", "folder"), ErrorCode::kNotFound);
    check_code(start("kernel", "../kernels/vmlinuz"), ErrorCode::kInvalid);
    check_code(start("kernel", ""), ErrorCode::kInvalid);
    check_code(start("initrd", "/etc/passwd"), ErrorCode::kInvalid);
    check_code(host.monitor().start_vnode("web", "{"), ErrorCode::kInvalid);
    check_code(host.monitor().start_vnode("web", "7"), ErrorCode::kInvalid);
    BOOST_TEST(std::filesystem::is_empty(host.directory / "run"));
}

BOOST_AUTO_TEST_CASE(a_vmm_that_does_not_start_says_why)
{
    Host host;
    const auto refused = host.start_vnode("web", 1, "refuses");
    check_code(refused, ErrorCode::kIo);
    BOOST_TEST(refused.error().message() == "fake-vmm: there is no /dev/kvm");
    const auto crashed = host.start_vnode("web", 2, "crashes");
    check_code(crashed, ErrorCode::kIo);
    BOOST_TEST(crashed.error().message() == "vnode-vmm ended with status 137");
    BOOST_TEST(host.vmms().empty());
    BOOST_TEST(host.agent.reports().empty(), "the start has failed, that is all");
    BOOST_TEST(std::filesystem::exists(host.file("web/vmm.log.1")), "the log of the run before is kept");
    host.start_ms = 300;
    host.restart();
    const auto before = host.agent.reports().size();
    const auto never = host.start_vnode("slow", 3, "never-starts");
    check_code(never, ErrorCode::kTimeout);
    BOOST_TEST(host.vmms().empty(), "it is ended");
    BOOST_TEST(host.agent.reports().size() == before);
}

BOOST_AUTO_TEST_CASE(an_end_is_reported_with_its_reason)
{
    Host host;
    require_ok(host.start_vnode("web", 7));
    static_cast<void>(host.monitor().control_vnode("web", R"({"command":"crash"})"));
    BOOST_TEST(eventually([&] { return host.agent.reports().size() == 1; }));
    BOOST_TEST(host.agent.reports().at(0) == "web 7 10 triple fault");
    BOOST_TEST(host.vmms().empty());
    require_ok(host.start_vnode("web", 8));
    BOOST_TEST(!std::filesystem::exists(host.file("web/exit.json")), "traces of the run before are gone");
    ::kill(host.pid(), SIGKILL);
    BOOST_TEST(eventually([&] { return host.agent.reports().size() == 2; }));
    BOOST_TEST(host.agent.reports().at(1) == "web 8 137 ");
    BOOST_TEST(host.vmms().empty());
}

BOOST_AUTO_TEST_CASE(a_vmm_that_does_not_listen_is_ended_all_the_same)
{
    for (const std::string behaviour : {"ignores-shutdown", "deaf"}) {
        Host host;
        require_ok(host.start_vnode("web", 1, behaviour));
        const pid_t pid = host.pid();
        require_ok(host.monitor().stop_vnode("web", 100));
        BOOST_TEST(eventually([pid] { return !is_alive(pid); }), behaviour);
        BOOST_TEST(host.agent.reports().empty());
    }
}

BOOST_AUTO_TEST_CASE(vmms_live_on_while_the_process_monitor_is_restarted)
{
    Host host;
    require_ok(host.start_vnode("web", 7));
    require_ok(host.start_vnode("two", 8));
    const pid_t two = host.pid();
    BOOST_TEST(host.vmms().size() == 2u);
    host.stop();
    BOOST_TEST(is_alive(two));
    host.start();
    BOOST_TEST(host.vmms() == (std::vector<std::string>{"two 8 running", "web 7 running"}),
               boost::test_tools::per_element());
    BOOST_TEST(host.pid() == two);
    BOOST_TEST(host.monitor().usage().used.value() == 32 * kMiB);
    BOOST_TEST(host.agent.reports().empty());
    ::kill(two, SIGKILL);
    BOOST_TEST(eventually([&] { return host.agent.reports().size() == 1; }));
    BOOST_TEST(host.agent.reports().at(0) == "two 8 137 ", "an adopted VMM is watched like any other");
    require_ok(host.start_vnode("web", 7));
    require_ok(host.monitor().stop_vnode("web", 0));
}

BOOST_AUTO_TEST_CASE(an_end_that_nobody_watched_is_reported_later)
{
    Host host;
    require_ok(host.start_vnode("web", 7));
    const pid_t pid = host.pid();
    host.stop();
    ::kill(pid, SIGKILL);
    BOOST_TEST(eventually([&] { return std::filesystem::exists(host.file("web/exit")); }));
    host.start();
    BOOST_TEST(host.vmms().empty());
    BOOST_REQUIRE(host.agent.reports().size() == 1u);
    BOOST_TEST(host.agent.reports().at(0) == "web 7 137 ");
    require_ok(host.start_vnode("web", 8));
    require_ok(host.monitor().stop_vnode("web", 0));
}

BOOST_AUTO_TEST_CASE(an_end_without_a_keeper_is_still_an_end)
{
    Host host;
    require_ok(host.start_vnode("web", 7));
    const pid_t pid = host.pid();
    const pid_t keeper = parent_of(pid);
    ::kill(keeper, SIGKILL);
    require_ok(host.monitor().control_vnode("web", R"({"command":"status"})"));
    ::kill(pid, SIGKILL);
    BOOST_TEST(eventually([&] { return host.agent.reports().size() == 1; }));
    BOOST_TEST(host.agent.reports().at(0) == "web 7 -1 ");
}

// Pids are given again: a process that only has the noted number is nobody's VMM.
BOOST_AUTO_TEST_CASE(another_process_with_the_noted_pid_is_not_adopted)
{
    Host host;
    require_ok(host.start_vnode("web", 7));
    const pid_t pid = host.pid();
    require_ok(host.monitor().stop_vnode("web", 0));
    host.stop();
    BOOST_TEST(eventually([pid] { return !is_alive(pid); }));
    std::filesystem::remove(host.file("web/exit"));
    for (const std::string& noted :
         {std::to_string(::getpid()) + " 1\n", std::to_string(::getpid()) + "\n", std::string{"-1 1\n"},
          std::string{"0 0\n"}, std::string{"many\n"}, std::string{}}) {
        std::ofstream{host.file("web/pid")} << noted;
        host.start();
        BOOST_TEST(host.vmms().empty(), noted);
        host.stop();
    }
    BOOST_TEST(is_alive(::getpid()));
}

BOOST_AUTO_TEST_CASE(strange_files_in_the_run_folder_are_left_alone)
{
    Host host;
    host.stop();
    std::ofstream{host.file("file")} << "no folder";
    std::filesystem::create_directory(host.file("empty"));
    std::filesystem::create_directory(host.file("broken"));
    std::ofstream{host.file("broken/config.json")} << "{";
    std::filesystem::create_directory(host.file("Not-Ours"));
    host.start();
    BOOST_TEST(host.vmms().empty());
    BOOST_TEST(host.agent.reports().empty());
    require_ok(host.start_vnode("empty", 1));
    require_ok(host.monitor().stop_vnode("empty", 0));
    BOOST_TEST(std::filesystem::exists(host.file("Not-Ours")));
}

BOOST_AUTO_TEST_CASE(a_vmm_that_does_not_answer_holds_nobody_up_for_ever)
{
    Host host;
    host.start_ms = 100;
    host.restart();
    check_code(host.start_vnode("web", 1, "mute"), ErrorCode::kTimeout);
    BOOST_TEST(host.vmms().empty());
    check_code(ask_vmm(host.file("web/control.sock"), "{}", 1000), ErrorCode::kUnavailable);
    check_code(ask_vmm(host.directory / std::string(200, 'x'), "{}", 1000), ErrorCode::kInvalid);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
