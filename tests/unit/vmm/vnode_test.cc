#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/wait.h>

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "fixtures.h"
#include "guest_program.h"
#include "tests/fakes/local_memory_monitor.h"
#include "vcpu/kvm.h"

namespace splitvisor::vmm::test {
namespace {

using Json = nlohmann::json;

struct WithKvm {
    boost::test_tools::assertion_result operator()(boost::unit_test::test_unit_id) const
    {
        return vcpu::System::open().ok();
    }
};

std::string vmm_program()
{
    const auto here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    return (here / "../../../vmm/vnode-vmm").lexically_normal();
}

/// A vnode-vmm process; killed where the test leaves it.
class Process {
  public:
    Process(std::vector<std::string> arguments, const std::string& output)
    {
        arguments.insert(arguments.begin(), vmm_program());
        std::vector<char*> pointers;
        for (auto& argument : arguments) pointers.push_back(argument.data());
        pointers.push_back(nullptr);
        pid_ = ::fork();
        BOOST_REQUIRE(pid_ >= 0);
        if (pid_ > 0) return;
        const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        ::dup2(fd, STDOUT_FILENO);
        ::dup2(fd, STDERR_FILENO);
        ::execv(pointers[0], pointers.data());
        ::_exit(127);
    }
    ~Process()
    {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    void signal(int number) const { BOOST_REQUIRE(::kill(pid_, number) == 0); }
    /// The exit status, or 1000 and the number of the signal that ended it.
    int status()
    {
        int status = 0;
        if (!eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; }))
            BOOST_FAIL("vnode-vmm does not end");
        pid_ = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    }

  private:
    pid_t pid_ = 0;
};

/// A folder with a configuration for local memory, and what its VMM leaves in run_dir.
class Place {
  public:
    Place()
    {
        set_kernel(obedient_kernel());
        config = {{"name", "test"},
                  {"epoch", 3},
                  {"vcpus", 1},
                  {"memory_bytes", 16 * kMiB},
                  {"kernel", folder / "kernel"},
                  {"run_dir", folder / "run"}};
    }
    void set_kernel(const Image& kernel)
    {
        folder.write("kernel", {reinterpret_cast<const char*>(kernel.data()), kernel.size()});
    }
    std::unique_ptr<Process> start(std::vector<std::string> more = {"--local-memory"})
    {
        const auto path = folder.write("config.json", config.dump());
        more.insert(more.end(), {"--config", path});
        return std::make_unique<Process>(std::move(more), folder / "output");
    }
    std::unique_ptr<SocketClient> connect(const std::string& name)
    {
        std::unique_ptr<SocketClient> client;
        BOOST_REQUIRE(eventually([&] {
            client = std::make_unique<SocketClient>(folder / ("run/" + name));
            return client->connected();
        }));
        return client;
    }
    Json ask(const std::string& command)
    {
        const auto client = connect("control.sock");
        BOOST_REQUIRE(client->send(Json{{"command", command}}.dump() + "\n"));
        return Json::parse(client->line());
    }
    /// Checks what an ended VMM leaves behind: why it ended, and no sockets.
    void check_ending(int status, std::string_view reason)
    {
        const auto text = folder.read("run/exit.json");
        const auto ending = Json::parse(text, nullptr, false);
        BOOST_REQUIRE_MESSAGE(ending.is_object(), "exit.json: " << text);
        BOOST_TEST(ending["status"] == status);
        BOOST_TEST(contains(ending["reason"].get<std::string>(), reason), text);
        std::set<std::string> left;
        for (const auto& entry : std::filesystem::directory_iterator{folder / "run"}) {
            left.insert(entry.path().filename());
        }
        BOOST_TEST((left == std::set<std::string>{"console.log", "exit.json", "lock"}));
    }
    [[nodiscard]] std::string output() const { return folder.read("output"); }

    TemporaryFolder folder;
    Json config;
};

/// A TCP port that takes connections and never says anything.
class SilentListener {
  public:
    SilentListener() : fd_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)}
    {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        BOOST_REQUIRE(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
        BOOST_REQUIRE(::listen(fd_.get(), 16) == 0);
        BOOST_REQUIRE(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
        endpoint_ = "tcp:127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    }
    [[nodiscard]] const std::string& endpoint() const { return endpoint_; }

  private:
    Fd fd_;
    std::string endpoint_;
};

Json region(const std::string& endpoint, RegionId id)
{
    const auto capability = fakes::LocalMemoryMonitor::capability(id);
    const std::string_view bytes{reinterpret_cast<const char*>(capability.data()), capability.size()};
    return {{"size_bytes", 16 * kMiB},
            {"replicas", Json::array({{{"component", "mem-a"},
                                       {"endpoint", endpoint},
                                       {"region", id.value()},
                                       {"capability", to_hex(bytes)}}})}};
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(vnode_vmm_usage, Place)

BOOST_AUTO_TEST_CASE(wrong_arguments_end_with_status_2)
{
    for (const std::vector<std::string>& wrong :
         {std::vector<std::string>{}, {"--config"}, {"--colour", "red"}, {"--config", "a", "b"}}) {
        BOOST_TEST(Process(wrong, folder / "output").status() == 2);
        BOOST_TEST(!output().empty());
    }
    BOOST_TEST(Process({"--version"}, folder / "output").status() == 0);
    BOOST_TEST(output().starts_with("vnode-vmm "));
    BOOST_TEST(Process({"--help"}, folder / "output").status() == 0);
}

BOOST_AUTO_TEST_CASE(a_configuration_can_be_checked_without_touching_anything)
{
    BOOST_TEST(start({"--local-memory", "--check-config"})->status() == 0);
    BOOST_TEST(output() == "");
    BOOST_TEST(start({"--check-config"})->status() == 1);
    BOOST_TEST(contains(output(), "config.json: excache_bytes: is missing; regions: is missing"));
    BOOST_TEST(std::ranges::count(output(), '\n') == 1);
    BOOST_TEST(!folder.has("run"));
}

BOOST_AUTO_TEST_CASE(a_configuration_that_cannot_be_read_is_one_line_and_status_1)
{
    for (const std::string& path : {folder / "absent", folder.path(), std::string{"/dev/zero"}}) {
        BOOST_TEST(Process({"--config", path}, folder / "output").status() == 1);
        BOOST_TEST(output().starts_with("vnode-vmm: " + path));
        BOOST_TEST(std::ranges::count(output(), '\n') == 1);
    }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(vnode, Place, *boost::unit_test::precondition(WithKvm{}))

BOOST_AUTO_TEST_CASE(runs_until_its_guest_powers_off)
{
    const auto vmm = start();
    const auto console = connect("console.sock");
    BOOST_TEST(console->line() == "0");
    const auto status = ask("status");
    BOOST_TEST(status["ok"] == true);
    BOOST_TEST(status["name"] == "test");
    BOOST_TEST(status["epoch"] == 3);
    BOOST_TEST(status["state"] == "running");
    BOOST_TEST(status["memory_bytes"] == 16 * kMiB);
    BOOST_TEST(ask("pause")["ok"] == true);
    BOOST_TEST(ask("status")["state"] == "paused");
    BOOST_TEST(ask("shutdown")["code"] == "unavailable");
    BOOST_TEST(ask("resume")["ok"] == true);
    BOOST_TEST(ask("reboot")["ok"] == false);
    BOOST_TEST(console->send("r"));
    BOOST_TEST(console->line() == "0");
    BOOST_TEST(eventually([&] { return ask("status")["restarts"] == 1; }));
    BOOST_TEST(ask("stats")["devices"].size() == 2u);
    BOOST_TEST(console->send("p"));
    BOOST_TEST(vmm->status() == 0);
    check_ending(0, "powered off");
    BOOST_TEST(folder.read("run/console.log") == "0\n0\n");
}

BOOST_AUTO_TEST_CASE(presses_the_power_button_for_shutdown)
{
    const auto vmm = start();
    const auto console = connect("console.sock");
    BOOST_TEST(console->send("b"));
    BOOST_TEST(console->until("b") == "0\nb");
    BOOST_TEST(ask("shutdown")["ok"] == true);
    BOOST_TEST(vmm->status() == 0);
    check_ending(0, "powered off");
}

BOOST_AUTO_TEST_CASE(ends_with_status_10_when_its_guest_crashes)
{
    set_kernel(make_pvh(Code{}.bytes({0x0f, 0x0b}).image()));
    BOOST_TEST(start()->status() == 10);
    check_ending(10, "guest crashed: triple fault at rip=0x");
    BOOST_TEST(contains(output(), "guest crashed: triple fault"));
}

BOOST_AUTO_TEST_CASE(is_killed_or_stopped_at_any_time)
{
    auto vmm = start();
    BOOST_TEST(connect("console.sock")->line() == "0");
    BOOST_TEST(ask("pause")["ok"] == true);
    BOOST_TEST(ask("kill")["ok"] == true);
    BOOST_TEST(vmm->status() == 0);
    check_ending(0, "killed");
    for (const int number : {SIGTERM, SIGINT}) {
        vmm = start();
        BOOST_TEST(connect("console.sock")->line() == "0");
        BOOST_TEST(!folder.has("run/exit.json"));
        vmm->signal(number);
        BOOST_TEST(vmm->status() == 0);
        check_ending(0, "stopped");
    }
}

BOOST_AUTO_TEST_CASE(leaves_the_reason_and_nothing_else_where_it_cannot_start)
{
    struct Failure {
        const char* key;
        Json value;
        const char* reason;
    };
    set_kernel(bytes_of_text("not a kernel at all"));
    for (const auto& failure :
         {Failure{"cmdline", "", "kernel: neither a bzImage nor an ELF file"},
          Failure{"kernel", "/absent/kernel", "kernel: /absent/kernel: No such file or directory"},
          Failure{"nets", Json::array({{{"tap", "bad/name"}, {"mac", "52:54:00:00:00:01"}}}),
                  "net bad/name"}}) {
        config[failure.key] = failure.value;
        BOOST_TEST(start()->status() == 1);
        check_ending(1, failure.reason);
        BOOST_TEST(contains(output(), std::string{"vnode-vmm: "} + failure.reason));
    }
}

BOOST_AUTO_TEST_CASE(a_run_dir_has_one_vmm)
{
    const auto first = start();
    const auto console = connect("console.sock");
    BOOST_TEST(console->line() == "0");
    BOOST_TEST(start()->status() == 1);
    BOOST_TEST(contains(output(), "another vnode-vmm uses this run_dir"));
    BOOST_TEST(!folder.has("run/exit.json"));
    BOOST_TEST(ask("status")["state"] == "running");
    BOOST_TEST(console->send("p"));
    BOOST_TEST(first->status() == 0);
}

BOOST_AUTO_TEST_CASE(a_killed_vmm_leaves_its_run_dir_to_the_next)
{
    auto vmm = start();
    BOOST_TEST(connect("console.sock")->line() == "0");
    vmm->signal(SIGKILL);
    BOOST_TEST(vmm->status() == 1000 + SIGKILL);
    BOOST_TEST(folder.has("run/control.sock"));
    vmm = start();
    BOOST_TEST(eventually([&] { return connect("console.sock")->send("p"); }));
    BOOST_TEST(vmm->status() == 0);
    check_ending(0, "powered off");
}

BOOST_AUTO_TEST_CASE(a_run_dir_that_cannot_be_made_is_status_1)
{
    config["run_dir"] = folder / "absent/run";
    BOOST_TEST(start()->status() == 1);
    BOOST_TEST(contains(output(), "vnode-vmm: cannot create " + (folder / "absent/run")));
    config["run_dir"] = folder / "kernel";
    BOOST_TEST(start()->status() == 1);
    BOOST_TEST(contains(output(), "Not a directory"));
}

BOOST_AUTO_TEST_CASE(answers_and_is_killed_while_its_memory_says_nothing)
{
    const SilentListener silent;
    config["excache_bytes"] = 4 * kMiB;
    config["regions"] = Json::array({region(silent.endpoint(), RegionId{1})});
    const auto vmm = start({});
    BOOST_TEST(ask("status")["state"] == "starting");
    BOOST_TEST(ask("pause")["error"] == "the machine is starting");
    BOOST_TEST(ask("stats")["ok"] == true);
    BOOST_TEST(ask("kill")["ok"] == true);
    BOOST_TEST(vmm->status() == 0);
    check_ending(0, "killed");
}

BOOST_AUTO_TEST_CASE(runs_on_remote_memory)
{
    for (const std::string& door : {std::string{"tcp:127.0.0.1:0"}, "shm:" + (folder / "mem-a")}) {
        fakes::LocalMemoryMonitor monitor{"mem-a", ByteCount{64 * kMiB}, door};
        monitor.create_region(RegionId{1}, ByteCount{16 * kMiB}, Epoch{3});
        config["excache_bytes"] = 4 * kMiB;
        config["regions"] = Json::array({region(monitor.endpoint().to_string(), RegionId{1})});
        const auto vmm = start({});
        const auto console = connect("console.sock");
        for (int boot = 0; boot < 3; ++boot) {
            BOOST_REQUIRE_EQUAL(console->line(), "0");
            BOOST_TEST(console->send(boot < 2 ? "r" : "x"));
        }
        BOOST_TEST(console->until("x") == "x");
        const auto engine = ask("stats")["engine"];
        BOOST_TEST(engine["faults"] > 0);
        BOOST_TEST(engine["resident_peak"] <= 1024);
        BOOST_TEST(console->send("p"));
        BOOST_TEST(vmm->status() == 0);
        check_ending(0, "powered off");
    }
}

BOOST_AUTO_TEST_CASE(is_refused_by_memory_that_belongs_to_a_later_owner)
{
    fakes::LocalMemoryMonitor monitor{"mem-a"};
    monitor.create_region(RegionId{1}, ByteCount{16 * kMiB}, Epoch{4});
    config["excache_bytes"] = 4 * kMiB;
    config["regions"] = Json::array({region(monitor.endpoint().to_string(), RegionId{1})});
    BOOST_TEST(start({})->status() != 0);
    BOOST_TEST(contains(folder.read("run/exit.json"), "mem-a"), folder.read("run/exit.json"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
