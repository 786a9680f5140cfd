#include <boost/test/unit_test.hpp>
#include <thread>

#include "base/clock.h"
#include "remote-mem/server.h"
#include "tests/fakes/local_memory_monitor.h"
#include "tests/unit/remote-mem/pages.h"

namespace splitvisor::remote_mem {

namespace {

const fabric::Endpoint kAnyPort = fabric::Endpoint::parse("tcp:127.0.0.1:0").value();
/// A listener's queue may be full for a moment; the kernel then tries again after a second, and after two
/// more.
constexpr int kConnectMs = 10'000;

bool eventually(const std::function<bool()>& condition)
{
    const auto deadline_ms = now_ms() + 5'000;
    while (now_ms() < deadline_ms) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
    return false;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(server)

BOOST_AUTO_TEST_CASE(bounds_its_connections)
{
    RegionStore store{ByteCount{kMiB}};
    const auto server = DataServer::start({.endpoint = kAnyPort, .max_connections = 3}, store);
    BOOST_REQUIRE(server.ok());
    std::vector<std::unique_ptr<fabric::Connection>> held;
    for (int i = 0; i < 3; ++i)
        held.push_back(std::move(fabric::connect((*server)->endpoint(), kConnectMs)).value());
    BOOST_TEST(eventually([&] { return (*server)->connections() == 3; }));
    auto refused = fabric::connect((*server)->endpoint(), kConnectMs);
    BOOST_REQUIRE(refused.ok());
    BOOST_TEST(((*refused)->receive(5'000).error().code() == ErrorCode::kUnavailable), "closed at once");
    BOOST_TEST((held[0]->receive(0).error().code() == ErrorCode::kTimeout), "the others are not disturbed");
    held.pop_back();
    BOOST_TEST(eventually([&] { return (*server)->connections() == 2; }));
    auto welcome = fabric::connect((*server)->endpoint(), kConnectMs);
    BOOST_REQUIRE(welcome.ok());
    BOOST_TEST(eventually([&] { return (*server)->connections() == 3; }));
    BOOST_TEST(((*welcome)->receive(0).error().code() == ErrorCode::kTimeout));
}

BOOST_AUTO_TEST_CASE(sends_silent_strangers_away)
{
    RegionStore store{ByteCount{kMiB}};
    const auto server = DataServer::start({.endpoint = kAnyPort, .admission_ms = 50}, store);
    BOOST_REQUIRE(server.ok());
    auto silent = fabric::connect((*server)->endpoint(), kConnectMs);
    BOOST_REQUIRE(silent.ok());
    BOOST_TEST(((*silent)->receive(5'000).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_CASE(ends_while_peers_are_connected)
{
    RegionStore store{ByteCount{kMiB}};
    auto server = DataServer::start({.endpoint = kAnyPort}, store);
    BOOST_REQUIRE(server.ok());
    std::vector<std::unique_ptr<fabric::Connection>> held;
    for (int i = 0; i < 20; ++i)
        held.push_back(std::move(fabric::connect((*server)->endpoint(), kConnectMs)).value());
    const auto start_ms = now_ms();
    server->reset();
    BOOST_TEST(now_ms() - start_ms < 2'000u);
    for (const auto& connection : held) BOOST_TEST(!connection->receive(1'000).ok());
}

BOOST_AUTO_TEST_CASE(many_connections_come_and_go)
{
    RegionStore store{ByteCount{kMiB}};
    const auto server = DataServer::start({.endpoint = kAnyPort, .max_connections = 50}, store);
    BOOST_REQUIRE(server.ok());
    for (int i = 0; i < 500; ++i) {
        const auto connection = fabric::connect((*server)->endpoint(), kConnectMs);
        BOOST_REQUIRE(connection.ok());
    }
    BOOST_TEST(eventually([&] { return (*server)->connections() == 0; }));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::remote_mem
