#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/clock.h"
#include "base/log.h"
#include "fabric/connection.h"
#include "tests/bench/report.h"

/// Replies over each transport between two processes, in interleaved turns: `fabric-round-trip [--json]
/// [ROUNDS]`. The baseline of shm and unix is tcp.
namespace splitvisor::bench {
namespace {

constexpr std::size_t kSmall = 4 * 1024;
constexpr std::size_t kLarge = 64 * 1024;

struct Turn {
    double p50_us = 0;
    double p99_us = 0;
    double mbytes_per_second = 0;
    bool verified = true;
};

std::vector<std::byte> content(std::size_t size)
{
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 131 + (i >> 8));
    return bytes;
}

/// Answers each request with as much data as its id says, until the client goes.
void serve(fabric::Listener& door)
{
    auto connection = door.accept();
    SPLITVISOR_CHECK(connection.ok());
    auto data = content(kLarge);
    while (true) {
        const auto incoming = (*connection)->receive(-1);
        if (!incoming || !(*connection)->skip_data()) return;
        const iovec vector{data.data(), std::min<std::size_t>(incoming->request_id, data.size())};
        if (!(*connection)->send({.kind = 1, .head = {}, .data = {&vector, 1}})) return;
    }
}

Turn measure(fabric::Connection& client, std::size_t size, int rounds)
{
    const auto expected = content(kLarge);
    std::vector<std::byte> data(size);
    std::vector<std::uint64_t> times(static_cast<std::size_t>(rounds));
    Turn turn;
    std::uint64_t total_ns = 0;
    for (auto& time : times) {
        const auto start_ns = now_ns();
        const iovec into{data.data(), data.size()};
        SPLITVISOR_CHECK(client.send({.kind = 1, .request_id = size, .head = {}, .data = {}}).ok());
        const auto reply = client.receive(10'000);
        SPLITVISOR_CHECK(reply.ok() && reply->data_bytes == size && client.receive_data({&into, 1}).ok());
        time = now_ns() - start_ns;
        total_ns += time;
        turn.verified &= std::equal(data.begin(), data.begin() + 64, expected.begin());
    }
    turn.verified &= std::equal(data.begin(), data.end(), expected.begin());
    std::ranges::sort(times);
    turn.p50_us = static_cast<double>(times[times.size() / 2]) / 1e3;
    turn.p99_us = static_cast<double>(times[times.size() * 99 / 100]) / 1e3;
    turn.mbytes_per_second = static_cast<double>(size) * rounds * 1e3 / static_cast<double>(total_ns);
    return turn;
}

/// One transport: a forked server and a client connected to it.
struct Lane {
    std::string name;
    std::unique_ptr<fabric::Connection> client;
    std::vector<double> p50, p99, speed;
    bool verified = true;
};

Lane lane(std::string name, const std::string& endpoint)
{
    auto door = fabric::listen(fabric::Endpoint::parse(endpoint).value());
    SPLITVISOR_CHECK(door.ok());
    if (::fork() == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(**door);
        std::_Exit(0);
    }
    auto client = fabric::connect((*door)->endpoint(), 5'000);
    SPLITVISOR_CHECK(client.ok());
    return {std::move(name), std::move(*client), {}, {}, {}};
}

void take_turn(Lane& lane, int rounds)
{
    measure(*lane.client, kSmall, std::max(1, rounds / 20));
    const auto small = measure(*lane.client, kSmall, rounds);
    const auto large = measure(*lane.client, kLarge, std::max(1, rounds / 4));
    lane.p50.push_back(small.p50_us);
    lane.p99.push_back(small.p99_us);
    lane.speed.push_back(large.mbytes_per_second);
    lane.verified &= small.verified && large.verified;
}

void add_rows(Report& report, const Lane& lane, const Lane& baseline)
{
    const auto add = [&](const std::string& what, const std::string& unit, const std::vector<double>& ours,
                         const std::vector<double>& theirs) {
        auto row = compare("fabric." + lane.name + "." + what, unit, ours, theirs);
        row.verified = lane.verified && baseline.verified;
        report.rows.push_back(std::move(row));
    };
    add("reply-4k.p50", "us", lane.p50, baseline.p50);
    add("reply-4k.p99", "us", lane.p99, baseline.p99);
    add("reply-64k", "MB/s", lane.speed, baseline.speed);
}

int run(int argc, char** argv)
{
    constexpr int kTurns = 7;
    bool json = false;
    int rounds = 5'000;
    for (int i = 1; i < argc; ++i) {
        if (std::string_view{argv[i]} == "--json") {
            json = true;
        } else if ((rounds = std::atoi(argv[i])) < 1 || rounds > 10'000'000) {
            std::cerr << "usage: fabric-round-trip [--json] [ROUNDS]\n";
            return 2;
        }
    }
    std::string folder = (std::filesystem::temp_directory_path() / "fabric-bench-XXXXXX").string();
    SPLITVISOR_CHECK(::mkdtemp(folder.data()) != nullptr);
    std::vector<Lane> lanes;
    lanes.push_back(lane("tcp", "tcp:127.0.0.1:0"));
    lanes.push_back(lane("unix", "unix:" + folder + "/unix"));
    lanes.push_back(lane("shm", "shm:" + folder + "/shm"));
    for (int turn = 0; turn < kTurns; ++turn) {
        for (auto& each : lanes) take_turn(each, rounds);
    }
    for (auto& each : lanes) each.client.reset();
    while (::wait(nullptr) > 0) {
    }
    std::filesystem::remove_all(folder);

    Report report{"fabric-round-trip",
                  command_line({argv, static_cast<std::size_t>(argc)}),
                  {{"rounds", std::to_string(rounds)}},
                  {}};
    for (std::size_t i = 1; i < lanes.size(); ++i) add_rows(report, lanes[i], lanes[0]);
    json ? print_json(std::cout, report) : print_table(std::cout, report);
    return 0;
}

}  // namespace
}  // namespace splitvisor::bench

int main(int argc, char** argv)
{
    return splitvisor::bench::run(argc, argv);
}
