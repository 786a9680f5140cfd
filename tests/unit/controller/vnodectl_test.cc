#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/fd.h"
#include "controller/http/http_server.h"
#include "controller/vnodectl/format.h"
#include "controller/vnodectl/table.h"
#include "tests/unit/controller/checks.h"
#include "tests/unit/controller/programs.h"
#include "tests/unit/controller/world.h"

namespace splitvisor::controller {

namespace {

struct Ended {
    int status = -1;
    std::string out;
    std::string err;
};

/// Runs vnodectl with what a test's user types.
class Shell {
  public:
    Shell(std::string controller, const std::string& token) : controller_{std::move(controller)}
    {
        std::ofstream{token_file()} << token << "\n";
    }

    [[nodiscard]] std::string token_file() const { return directory_ / "token"; }

    Ended run(std::vector<std::string> words) const
    {
        words.insert(words.begin(), {"--controller", controller_, "--token-file", token_file()});
        return run_bare(words);
    }
    /// Without the flags that say where the controller is.
    [[nodiscard]] Ended run_bare(const std::vector<std::string>& words) const
    {
        const std::string program = built("controller/vnodectl");
        std::vector<const char*> arguments{program.c_str()};
        for (const std::string& word : words) arguments.push_back(word.c_str());
        arguments.push_back(nullptr);
        const char* const environment[] = {"PATH=/usr/bin:/bin", nullptr};
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        ::posix_spawn_file_actions_addopen(&actions, 1, (directory_ / "out").c_str(),
                                           O_WRONLY | O_CREAT | O_TRUNC, 0600);
        ::posix_spawn_file_actions_addopen(&actions, 2, (directory_ / "err").c_str(),
                                           O_WRONLY | O_CREAT | O_TRUNC, 0600);
        pid_t pid = 0;
        const int error =
            ::posix_spawn(&pid, program.c_str(), &actions, nullptr,
                          const_cast<char* const*>(arguments.data()), const_cast<char* const*>(environment));
        ::posix_spawn_file_actions_destroy(&actions);
        BOOST_REQUIRE_MESSAGE(error == 0, program);
        int status = 0;
        BOOST_REQUIRE(::waitpid(pid, &status, 0) == pid);
        Ended outcome{WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of("out"), text_of("err")};
        return outcome;
    }

  private:
    [[nodiscard]] std::string text_of(const std::string& file) const
    {
        auto text = read_file(directory_ / file, ByteCount{kMiB});
        require_ok(text);
        return std::move(*text);
    }

    fakes::TemporaryDirectory directory_;
    const std::string controller_;
};

std::string url_of(std::uint16_t port)
{
    return "http://127.0.0.1:" + std::to_string(port);
}

/// A port of this machine on which nobody listens: bound, so that nobody else gets it.
class SilentPort {
  public:
    SilentPort() : socket_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)}
    {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        BOOST_REQUIRE(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
        BOOST_REQUIRE(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
        port_ = ntohs(address.sin_port);
    }
    [[nodiscard]] std::uint16_t port() const { return port_; }

  private:
    Fd socket_;
    std::uint16_t port_ = 0;
};

/// The API with fake components behind a real server, and a shell to use it.
class Cluster {
  public:
    Cluster()
    {
        world.add_usual();
        auto server = start_http_server({}, world.api());
        require_ok(server);
        server_ = std::move(*server);
        shell.emplace(url_of(server_->port()), world.token());
    }

    World world;
    std::optional<Shell> shell;

  private:
    std::unique_ptr<HttpServer> server_;
};

/// Always answers the same.
class FakeApi final : public HttpHandler {
  public:
    explicit FakeApi(HttpResponse response) : response_{std::move(response)} {}
    HttpResponse handle(const HttpRequest&) override { return response_; }
    std::variant<std::shared_ptr<BytePipe>, HttpResponse> upgrade(const HttpRequest&) override
    {
        return response_;
    }

  private:
    const HttpResponse response_;
};

Ended told(const HttpResponse& response, const std::vector<std::string>& words)
{
    FakeApi api{response};
    const auto server = start_http_server({}, api);
    require_ok(server);
    return Shell{url_of((*server)->port()), "token"}.run(words);
}

void check_one_line_error(const Ended& outcome, int status, const std::string& part)
{
    BOOST_TEST(outcome.status == status);
    BOOST_TEST(outcome.out == "");
    BOOST_TEST(outcome.err.starts_with("vnodectl: "), outcome.err);
    BOOST_TEST(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1, outcome.err);
    BOOST_TEST(contains(outcome.err, part), outcome.err);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(vnodectl_program)

BOOST_AUTO_TEST_CASE(tables_are_as_wide_as_their_cells)
{
    using vnodectl::format_table;
    BOOST_TEST(format_table({{"NAME", "SIZE"}, {"a", "1"}, {"longer", ""}}) ==
               "NAME    SIZE\na       1\nlonger\n");
    BOOST_TEST(format_table({{"A"}}) == "A\n");
    BOOST_TEST(format_table({}) == "");
    BOOST_TEST(format_table({{"A"}, {"1", "2"}}) == "A\n1  2\n");
}

BOOST_AUTO_TEST_CASE(answers_are_formatted_for_people)
{
    const auto volumes = Json::parse(
        R"({"volumes":[{"name":"root","state":"available","size_bytes":1610612736,"image":null,"component":"s1",
            "attached_to":"web"}]})");
    BOOST_TEST(vnodectl::format_volumes(*volumes) ==
               "NAME  STATE      SIZE     IMAGE  SCOMPONENT  ATTACHED TO\n"
               "root  available  1.5 GiB  -      s1          web\n");
    const auto components = Json::parse(
        R"({"components":[{"name":"m1","kind":"memory","connected":false,"data_endpoint":"tcp:[::1]:1",
            "capacity_bytes":null,"used_bytes":null,"allocated_bytes":0}]})");
    BOOST_TEST(vnodectl::format_components(*components) ==
               "NAME  KIND    STATE  CAPACITY  ALLOCATED  USED  ENDPOINT\n"
               "m1    memory  away   -         0 B        -     tcp:[::1]:1\n");
    const auto vnodes = Json::parse(
        R"({"vnodes":[{"name":"web","state":"running","vcpus":2,"memory_bytes":536870912,"excache_bytes":134217728,
            "memory_copies":1,"pcomponent":"p1","reason":"started"}]})");
    BOOST_TEST(vnodectl::format_vnodes(*vnodes) ==
               "NAME  STATE    VCPUS  MEMORY   EXCACHE  COPIES  PCOMPONENT  REASON\n"
               "web   running  2      512 MiB  128 MiB  1       p1          started\n");
    const auto details =
        Json::parse(R"({"name":"web","memory_bytes":1024,"none":null,"list":[],"nets":[{"tap":"t"}],
        "inner":{"a":1,"b":["x"]}})");
    BOOST_TEST(vnodectl::format_details(*details) ==
               "name: web\nmemory_bytes: 1 KiB (1024)\nnone: -\nlist: -\nnets:\n  - "
               "{\"tap\":\"t\"}\ninner:\n  a: 1\n"
               "  b:\n    - x\n");
    BOOST_TEST(vnodectl::format_details(Json{}) == "");
    BOOST_TEST(contains(vnodectl::format_volumes(Json{}), "NAME"));
}

// Guests, VMMs and components can have said what is printed.
BOOST_AUTO_TEST_CASE(no_control_character_reaches_the_terminal)
{
    const std::string evil = "a\x1b[2Jb\nc\x7f";
    const Json body = Json::object()
                          .set("reason", evil)
                          .set(evil, "key")
                          .set("list", Json::Array{evil})
                          .set("objects", Json::Array{Json::object().set("tap", evil)})
                          .set("inner", Json::object().set(evil, evil));
    const Json vnode =
        Json::object().set("name", evil).set("state", evil).set("reason", evil).set("pcomponent", evil);
    const Json component = Json::object().set("name", evil).set("kind", evil).set("data_endpoint", evil);
    const Json volume =
        Json::object().set("name", evil).set("state", evil).set("image", evil).set("component", evil);
    const std::string all =
        vnodectl::format_details(body) +
        vnodectl::format_vnodes(Json::object().set("vnodes", Json::Array{vnode})) +
        vnodectl::format_components(Json::object().set("components", Json::Array{component})) +
        vnodectl::format_volumes(Json::object().set("volumes", Json::Array{volume}));
    BOOST_TEST(std::none_of(
                   all.begin(), all.end(),
                   [](char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\n') || c == '\x7f'; }),
               all);
    BOOST_TEST(!contains(all, "b\nc"));
}

BOOST_AUTO_TEST_CASE(wrong_words_are_told_in_one_line)
{
    const Shell shell{"http://127.0.0.1:1", "token"};
    const auto wrong = [&shell](const std::vector<std::string>& words, const std::string& part) {
        check_one_line_error(shell.run(words), 2, part);
    };
    wrong({}, "subcommand");
    wrong({"vnode"}, "subcommand");
    wrong({"volume"}, "subcommand");
    wrong({"dance"}, "dance");
    wrong({"vnode", "dance"}, "dance");
    wrong({"vnode", "show"}, "NAME");
    wrong({"vnode", "show", "a", "b"}, "b");
    wrong({"vnode", "list", "--loud"}, "--loud");
    wrong({"vnode", "stop", "web", "--grace", "601"}, "--grace");
    wrong({"vnode", "stop", "web", "--grace", "soon"}, "--grace");
    wrong({"vnode", "create", "web", "--kernel", "vmlinuz"}, "--memory");
    wrong({"vnode", "create", "web", "--memory", "1G"}, "--kernel");
    wrong({"vnode", "create", "web", "--memory", "1G", "--kernel", "vmlinuz", "--vcpus", "many"}, "--vcpus");
    wrong({"vnode", "console", "web", "--idle", "-1"}, "--idle");
    wrong({"volume", "create", "root"}, "--size");
    wrong({"--controller"}, "--controller");
}

BOOST_AUTO_TEST_CASE(help_and_version_are_no_errors)
{
    const Shell shell{"http://127.0.0.1:1", "token"};
    for (const std::vector<std::string>& words : {std::vector<std::string>{"--help"},
                                                  {"vnode", "--help"},
                                                  {"vnode", "create", "--help"},
                                                  {"--version"}}) {
        const auto outcome = shell.run_bare(words);
        BOOST_TEST(outcome.status == 0);
        BOOST_TEST(!outcome.out.empty());
        BOOST_TEST(outcome.err == "");
    }
}

BOOST_AUTO_TEST_CASE(a_controller_that_cannot_be_asked_is_told_in_one_line)
{
    const SilentPort silent;
    const Shell shell{url_of(silent.port()), "token"};
    const std::string where = "127.0.0.1:" + std::to_string(silent.port());
    for (const std::vector<std::string>& words : {std::vector<std::string>{"vnode", "list"},
                                                  {"vnode", "list", "--json"},
                                                  {"vnode", "console", "web"},
                                                  {"volume", "create", "root", "--size", "1G"},
                                                  {"vnode", "delete", "web"}}) {
        check_one_line_error(shell.run(words), 1, where);
    }
    check_one_line_error(shell.run_bare({"vnode", "list"}), 1, "SPLITVISOR_TOKEN_FILE");
    check_one_line_error(shell.run_bare({"vnode", "list", "--token-file", "/nowhere/token"}), 1,
                         "/nowhere/token");
    for (const std::string url : {"127.0.0.1:7770", "https://127.0.0.1:7770", "http://127.0.0.1",
                                  "http://:7770", "http://127.0.0.1:port", "http://127.0.0.1:7770/v1", ""}) {
        check_one_line_error(
            shell.run_bare({"vnode", "list", "--token-file", shell.token_file(), "--controller", url}), 1,
            "is not a controller's address");
    }
}

BOOST_AUTO_TEST_CASE(answers_that_make_no_sense_are_told_in_one_line)
{
    check_one_line_error(told({200, "text/html", "<html>", {}}, {"vnode", "list"}), 1,
                         "the controller's answer");
    check_one_line_error(told({502, "text/html", "", {}}, {"vnode", "list"}), 1, "status 502");
    check_one_line_error(
        told({500, "application/problem+json", R"({"detail":"disk\u001b[2J full"})", {}}, {"vnode", "list"}),
        1, "disk?[2J full");
    check_one_line_error(told({409, "application/problem+json", R"({"detail":"it does not run"})", {}},
                              {"vnode", "console", "web"}),
                         1, "it does not run");
}

BOOST_AUTO_TEST_CASE(names_cannot_become_other_paths)
{
    Cluster cluster;
    for (const std::string name : {"../volumes", "a/b", "A", "a?b", "%61"}) {
        check_one_line_error(cluster.shell->run({"vnode", "show", name}), 1, "is not a valid name");
        check_one_line_error(cluster.shell->run({"volume", "delete", name}), 1, "is not a valid name");
        check_one_line_error(cluster.shell->run({"vnode", "console", name}), 1, "is not a valid name");
    }
}

BOOST_AUTO_TEST_CASE(a_refusal_has_its_reasons_in_the_same_line)
{
    Cluster cluster;
    const auto outcome =
        cluster.shell->run({"vnode", "create", "web", "--memory", "2G", "--kernel", "vmlinuz"});
    BOOST_TEST(outcome.status == 1);
    BOOST_TEST(outcome.out == "");
    BOOST_TEST(outcome.err ==
               "vnodectl: the mComponents cannot take the vNode's memory: "
               "m1: 0 B left, 64 MiB needed for each vRegion\n");
    check_one_line_error(Shell{"http://127.0.0.1:1", ""}.run_bare({"vnode", "list"}), 1, "no token");
}

BOOST_AUTO_TEST_CASE(every_command_works_and_knows_json)
{
    Cluster cluster;
    const auto done = [&cluster](std::vector<std::string> words, const std::string& expected) {
        const auto outcome = cluster.shell->run(words);
        BOOST_TEST(outcome.status == 0, words[1] << ": " << outcome.err);
        BOOST_TEST(outcome.err == "");
        BOOST_TEST(contains(outcome.out, expected), outcome.out);
    };
    const auto json = [&cluster](std::vector<std::string> words, bool flag_first = false) {
        words.insert(flag_first ? words.begin() : words.end(), "--json");
        const auto outcome = cluster.shell->run(words);
        BOOST_TEST(outcome.status == 0, words[1] << ": " << outcome.err);
        BOOST_TEST(outcome.out.ends_with('\n'));
        auto parsed = Json::parse(outcome.out);
        require_ok(parsed);
        BOOST_TEST(parsed->if_object() != nullptr);
        return std::move(*parsed);
    };
    done({"version"}, "api: v1");
    BOOST_TEST(json({"version"}, true).text("api") == "v1");
    done({"volume", "create", "root", "--size", "16M", "--image", "debian"}, "volume 'root' is created\n");
    BOOST_TEST(json({"volume", "create", "data", "--size", "16777216"}).text("name") == "data");
    done({"volume", "list"}, "root  available  16 MiB  debian  s1          -\n");
    BOOST_TEST(json({"volume", "list"}).elements("volumes").size() == 2u);
    done({"volume", "show", "root"}, "size_bytes: 16 MiB (16777216)\n");
    BOOST_TEST(json({"volume", "show", "root"}).text("state") == "available");
    done({"vnode",
          "create",
          "web",
          "--memory",
          "128M",
          "--excache",
          "50%",
          "--vcpus",
          "2",
          "--kernel",
          "vmlinuz",
          "--initrd",
          "initrd",
          "--volume",
          "root",
          "--volume",
          "data,ro",
          "--net",
          "tap0,52:54:00:00:00:01",
          "--cmdline",
          "root=/dev/vda rw",
          "--mechanism",
          "move",
          "--start"},
         "vNode 'web' is created and runs\n");
    const Json web = json({"vnode", "show", "web"}, true);
    BOOST_TEST(web.text("state") == "running");
    BOOST_TEST(web.number("excache_bytes") == 64 * kMiB);
    BOOST_TEST(web.elements("volumes").at(1).flag("read_only"));
    BOOST_TEST(web.text("cmdline") == "root=/dev/vda rw");
    BOOST_TEST(web.elements("nets").at(0).text("mac") == "52:54:00:00:00:01");
    done({"vnode", "list"}, "web   running  2      128 MiB  64 MiB   1       p1          started\n");
    BOOST_TEST(json({"vnode", "list"}).elements("vnodes").size() == 1u);
    done({"vnode", "stats", "web"}, "mmio: 1");
    BOOST_TEST(json({"vnode", "stats", "web"}).flag("ok"));
    done({"component", "list"}, "m1    memory     connected  1 GiB");
    BOOST_TEST(json({"component", "list"}).elements("components").size() == 3u);
    done({"component", "show", "p1"}, "kind: processor\n");
    BOOST_TEST(json({"component", "show", "p1"}).text("kind") == "processor");
    done({"vnode", "stop", "web", "--grace", "0.5"}, "vNode 'web' is stopped\n");
    done({"vnode", "start", "web"}, "vNode 'web' runs\n");
    BOOST_TEST(json({"vnode", "stop", "web", "--force"}).text("state") == "stopped");
    BOOST_TEST(json({"vnode", "start", "web"}).text("state") == "running");
    done({"vnode", "stop", "web"}, "is stopped");
    BOOST_TEST(json({"vnode", "delete", "web"}).if_object()->empty());
    done({"volume", "delete", "root"}, "volume 'root' is deleted\n");
    BOOST_TEST(json({"volume", "delete", "data"}).if_object()->empty());
    BOOST_TEST(json({"vnode", "create", "two", "--memory", "64M", "--kernel", "vmlinuz"}).text("name") ==
               "two");
    done({"vnode", "delete", "two"}, "vNode 'two' is deleted\n");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
