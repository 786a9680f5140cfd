#include <sys/stat.h>

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <list>
#include <nlohmann/json.hpp>
#include <random>

#include "fixtures.h"
#include "vmm/control_protocol.h"
#include "vmm/control_server.h"

namespace splitvisor::vmm::test {
namespace {

using Json = nlohmann::json;

std::string request(std::string_view command)
{
    return "{\"command\":\"" + std::string{command} + "\"}";
}

/// The error of a refused line, checked to be answerable in one line.
std::string refusal(std::string_view line)
{
    const auto command = parse_command(line);
    if (command) return {};
    const auto answer = format_error(command.error());
    BOOST_TEST(!contains(answer, "\n"));
    BOOST_TEST(answer.size() < 1000u);
    BOOST_TEST(Json::parse(answer)["code"] == "invalid");
    return command.error().message();
}

struct ServerFixture {
    ControlServer::Answer answer(std::string_view line)
    {
        if (line == "large") return {std::string(kMiB, 'l'), {}};
        if (line == "hold") {
            ++holding;
            while (hold) std::this_thread::sleep_for(std::chrono::milliseconds{1});
        }
        if (line == "after") return {"first", [this] { after = true; }};
        return {"<" + std::string{line.substr(0, 100)} + ">" + std::to_string(line.size()), {}};
    }
    std::string ask(const std::string& line)
    {
        SocketClient client{folder / "control.sock"};
        BOOST_REQUIRE(client.send(line + "\n"));
        return client.line();
    }

    TemporaryFolder folder;
    std::atomic<bool> hold{false};
    std::atomic<int> holding{0};
    std::atomic<bool> after{false};
    std::unique_ptr<ControlServer> server = take(ControlServer::start(
        folder / "control.sock", [this](std::string_view line) { return answer(line); }));
};

}  // namespace

BOOST_AUTO_TEST_SUITE(control_protocol)

BOOST_AUTO_TEST_CASE(knows_its_commands)
{
    const std::vector<std::pair<std::string, Command>> known{
        {"status", Command::kStatus}, {"stats", Command::kStats},       {"pause", Command::kPause},
        {"resume", Command::kResume}, {"shutdown", Command::kShutdown}, {"kill", Command::kKill}};
    for (const auto& [name, command] : known) BOOST_TEST((take(parse_command(request(name))) == command));
    BOOST_TEST(parse_command(" { \"command\" : \"status\" } \r").ok());
}

BOOST_AUTO_TEST_CASE(refuses_everything_else)
{
    for (const auto* line : {"", " ", "status", "[]", "null", "7", "{", "{}}", "{\"command\":\"status\"} x",
                             "{\"command\":\"status\",}", "\xff", "{\"command\":\"\xff\"}", "'command'"}) {
        BOOST_TEST(refusal(line) == "not a JSON object", line);
    }
    BOOST_TEST(refusal("{}") == "command is missing");
    BOOST_TEST(refusal("{\"command\":1}") == "command is missing");
    BOOST_TEST(refusal("{\"Command\":\"status\"}") == "command is missing");
    BOOST_TEST(refusal("{\"command\":\"status\",\"force\":true}") == "command takes no arguments");
    for (const auto* name : {"", "Status", "status ", "reboot", "kill\\u0000"}) {
        BOOST_TEST(refusal(request(name)).starts_with("unknown command; known are"));
    }
    BOOST_TEST(refusal("{\"command\":\"status\",\"command\":\"kill\"}") != "");
}

BOOST_AUTO_TEST_CASE(does_not_follow_a_line_into_the_depth)
{
    for (const std::size_t depth : {5u, 100u, 30'000u}) {
        BOOST_TEST(refusal(std::string(depth, '[')) == "not a JSON object");
        BOOST_TEST(refusal(std::string(depth, '[') + std::string(depth, ']')) == "not a JSON object");
        std::string objects;
        for (std::size_t i = 0; i < depth; ++i) objects += "{\"command\":";
        BOOST_TEST(refusal(objects + "1" + std::string(depth, '}')) != "");
    }
}

BOOST_AUTO_TEST_CASE(survives_whatever_a_line_may_hold)
{
    std::mt19937_64 random{4};
    constexpr std::string_view kSpice = "{}[]\",:0-9eE.\\u\x80\xff truefalsn";
    for (int round = 0; round < 20'000; ++round) {
        auto line = request(round % 2 == 0 ? "status" : "kill");
        for (auto edits = 1 + random() % 4; edits > 0; --edits) {
            const auto at = random() % line.size();
            switch (random() % 3) {
            case 0: line[at] = kSpice[random() % kSpice.size()]; break;
            case 1: line.insert(at, 1, static_cast<char>(random())); break;
            default: line.erase(at, 1); break;
            }
        }
        (void)refusal(line);
    }
}

BOOST_AUTO_TEST_CASE(answers_are_one_line_of_json_whatever_is_in_them)
{
    VnodeStatus status;
    status.name = "web";
    status.waiting_for = "a\nb\xff\"";
    status.state = MachineState::kPaused;
    const auto status_text = format_status(status);
    BOOST_TEST(!contains(status_text, "\n"));
    const auto parsed = Json::parse(status_text);
    BOOST_TEST(parsed["ok"] == true);
    BOOST_TEST(parsed["state"] == "paused");
    VnodeStats stats;
    stats.exits[0] = 3;
    stats.devices.push_back({"disk", "root", {{"reads", 5}}});
    const auto counters = Json::parse(format_stats(stats));
    BOOST_TEST(counters["exits"].size() == vcpu::kExitCauses);
    BOOST_TEST(counters["devices"][0]["reads"] == 5);
    BOOST_TEST(!counters.contains("engine"));
    stats.has_engine = true;
    BOOST_TEST(Json::parse(format_stats(stats))["engine"].contains("resident_peak"));
    BOOST_TEST(Json::parse(format_ending(10, "guest crashed: \x80"))["status"] == 10);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(control_server, ServerFixture)

BOOST_AUTO_TEST_CASE(answers_line_by_line_however_they_arrive)
{
    SocketClient client{folder / "control.sock"};
    BOOST_REQUIRE(client.send("one\ntwo\n\nthr"));
    BOOST_TEST(client.line() == "<one>3");
    BOOST_TEST(client.line() == "<two>3");
    BOOST_TEST(client.line() == "<>0");
    BOOST_REQUIRE(client.send("ee\n"));
    BOOST_TEST(client.line() == "<three>5");
    std::string many;
    for (int i = 0; i < 500; ++i) many += std::to_string(i) + "\n";
    BOOST_REQUIRE(client.send(many));
    for (int i = 0; i < 500; ++i) BOOST_REQUIRE(client.line().starts_with("<" + std::to_string(i) + ">"));
}

BOOST_AUTO_TEST_CASE(takes_a_line_of_64_kib_and_no_longer_one)
{
    BOOST_TEST(ask(std::string(64 * kKiB, 'x')).ends_with(">65536"));
    for (const std::size_t length : {64 * kKiB + 1, 64 * kKiB + 2000, 66 * kKiB}) {
        SocketClient client{folder / "control.sock"};
        client.send(std::string(length, 'x') + "\n");
        BOOST_TEST(contains(client.line(), "line longer than 64 KiB"), length);
        BOOST_TEST(client.ended());
    }
    SocketClient endless{folder / "control.sock"};
    const std::string chunk(kMiB, 'x');
    while (endless.send(chunk)) {
    }
    BOOST_TEST(endless.ended());
    BOOST_TEST(ask("still here") == "<still here>10");
}

BOOST_AUTO_TEST_CASE(a_command_that_waits_delays_nobody_else)
{
    hold = true;
    SocketClient waiting{folder / "control.sock"};
    BOOST_REQUIRE(waiting.send("hold\n"));
    BOOST_REQUIRE(eventually([&] { return holding == 1; }));
    for (int i = 0; i < 5; ++i) BOOST_TEST(ask("other") == "<other>5");
    hold = false;
    BOOST_TEST(waiting.line() == "<hold>4");
}

BOOST_AUTO_TEST_CASE(more_clients_than_it_serves_are_told_so)
{
    std::list<SocketClient> clients;
    for (std::size_t i = 0; i < ControlServer::kMaxClients; ++i) {
        auto& client = clients.emplace_back(folder / "control.sock");
        BOOST_REQUIRE(client.send("hello\n"));
        BOOST_REQUIRE(client.line() == "<hello>5");
    }
    SocketClient refused{folder / "control.sock"};
    BOOST_TEST(contains(refused.line(), "too many clients"));
    BOOST_TEST(refused.ended());
    for (auto& client : clients) {
        BOOST_REQUIRE(client.send("again\n"));
        BOOST_TEST(client.line() == "<again>5");
    }
    clients.clear();
    BOOST_TEST(eventually([&] { return ask("hello") == "<hello>5"; }));
}

BOOST_AUTO_TEST_CASE(clients_that_come_and_go_leave_nothing_behind)
{
    for (int i = 0; i < 300; ++i) {
        SocketClient client{folder / "control.sock"};
        BOOST_REQUIRE(client.connected());
        if (i % 3 == 0) (void)client.send("half a line");
        if (i % 3 == 1) (void)client.send("large\n");
    }
    BOOST_TEST(eventually([&] { return ask("hello") == "<hello>5"; }));
}

BOOST_AUTO_TEST_CASE(a_client_that_never_reads_is_given_up)
{
    SocketClient lazy{folder / "control.sock"};
    for (int i = 0; i < 8; ++i) BOOST_REQUIRE(lazy.send("large\n"));
    BOOST_TEST(ask("hello") == "<hello>5");
    // The server takes no further line once it waits to send; after its patience it closes.
    BOOST_TEST(eventually([&] { return !lazy.send("more\n"); }));
    BOOST_TEST(ask("hello") == "<hello>5");
}

BOOST_AUTO_TEST_CASE(ends_while_clients_wait_and_do_not_read)
{
    SocketClient lazy{folder / "control.sock"};
    BOOST_REQUIRE(lazy.send("large\nlarge\nlarge\n"));
    SocketClient idle{folder / "control.sock"};
    SocketClient half{folder / "control.sock"};
    BOOST_REQUIRE(half.send("half a line"));
    BOOST_TEST(ask("hello") == "<hello>5");
    server.reset();
    BOOST_TEST(!folder.has("control.sock"));
    BOOST_TEST(idle.ended());
    BOOST_TEST(half.ended());
}

BOOST_AUTO_TEST_CASE(what_comes_after_the_answer_comes_after_it)
{
    BOOST_TEST(ask("after") == "first");
    BOOST_TEST(eventually([&] { return after.load(); }));
}

BOOST_AUTO_TEST_CASE(the_socket_belongs_to_its_user_alone_and_replaces_what_lay_there)
{
    struct stat info {};
    BOOST_REQUIRE(::stat((folder / "control.sock").c_str(), &info) == 0);
    BOOST_TEST((info.st_mode & 0777) == 0600u);
    folder.write("stale", "left by an earlier process");
    const auto other =
        take(ControlServer::start(folder / "stale", [this](std::string_view line) { return answer(line); }));
    SocketClient client{folder / "stale"};
    BOOST_REQUIRE(client.send("hello\n"));
    BOOST_TEST(client.line() == "<hello>5");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
