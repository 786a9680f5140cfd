#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <thread>

#include "base/clock.h"
#include "base/units.h"
#include "tests/unit/fabric/listener_checks.h"
#include "tests/unit/fabric/socket_pair.h"

namespace splitvisor::fabric {

namespace {

Endpoint endpoint_here()
{
    BOOST_REQUIRE_MESSAGE(test_endpoint() != nullptr, "SPLITVISOR_TEST_ENDPOINT is not set");
    return Endpoint::parse(test_endpoint()).value();
}

/// Another process that runs one of the cases of the suite `child` below, connected to a listener of ours.
/// Started by exec: what an RDMA library holds does not survive a fork.
class Child {
  public:
    Child(const std::string& test_case, const Endpoint& endpoint)
    {
        const auto option = "--run_test=child/" + test_case;
        const auto variable = "SPLITVISOR_TEST_ENDPOINT=" + endpoint.to_string();
        std::array<char*, 3> arguments{const_cast<char*>("unit-fabric-rdma"),
                                       const_cast<char*>(option.c_str()), nullptr};
        std::array<char*, 2> environment{const_cast<char*>(variable.c_str()), nullptr};
        SPLITVISOR_CHECK(::posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, arguments.data(),
                                       environment.data()) == 0);
    }
    Child(const Child&) = delete;
    ~Child()
    {
        signal(SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    void signal(int number) const { ::kill(pid_, number); }

  private:
    pid_t pid_ = 0;
};

bool echo_once(Connection& connection)
{
    const auto incoming = connection.receive(10'000);
    if (!incoming) return false;
    std::vector<std::byte> bytes(incoming->data_bytes);
    const auto vector = vector_over(bytes);
    return connection.receive_data({&vector, 1}).ok() &&
           connection.send({.kind = 1, .head = {}, .data = {&vector, 1}}).ok();
}

bool ask_once(Connection& connection, std::vector<std::byte>& data)
{
    std::vector<std::byte> received(data.size());
    const auto vector = vector_over(data);
    const auto into = vector_over(received);
    return connection.send({.kind = 1, .head = {}, .data = {&vector, 1}}).ok() &&
           connection.receive(10'000).ok() && connection.receive_data({&into, 1}).ok() && received == data;
}

double median_round_trip_us(const Endpoint& endpoint, std::size_t size, int rounds)
{
    auto [a, b] = connected_through(endpoint, 10'000);
    auto data = pattern(size);
    std::thread server{[&, &end = *b] {
        for (int round = 0; round < rounds && echo_once(end); ++round) continue;
    }};
    std::vector<double> times;
    for (int round = 0; round < rounds; ++round) {
        const auto start_ns = now_ns();
        if (!ask_once(*a, data)) break;
        times.push_back(static_cast<double>(now_ns() - start_ns) / 1'000.0);
    }
    server.join();
    BOOST_REQUIRE(times.size() == static_cast<std::size_t>(rounds));
    std::ranges::nth_element(times, times.begin() + rounds / 2);
    return times[times.size() / 2];
}

/// The child sends a large message of which we take the beginning only, so it is in the middle of it for sure when the signal
/// comes. Returns how long receiving the rest took, which has to fail with `expected`.
std::uint64_t end_in_the_middle(int signal, int message_limit_ms, ErrorCode expected)
{
    const auto door = listen(endpoint_here(), message_limit_ms);
    BOOST_REQUIRE(door.ok());
    const Child child{"sends_a_large_message", (*door)->endpoint()};
    const auto connection = (*door)->accept();
    BOOST_REQUIRE(connection.ok());
    const auto incoming = (*connection)->receive(20'000);
    BOOST_REQUIRE(incoming.ok());
    child.signal(signal);
    std::vector<std::byte> received(incoming->data_bytes);
    const auto into = vector_over(received);
    const auto start_ms = now_ms();
    BOOST_TEST(((*connection)->receive_data({&into, 1}).error().code() == expected));
    return now_ms() - start_ms;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(rdma)

BOOST_AUTO_TEST_CASE(tells_the_port_that_was_chosen)
{
    check_chosen_ports(endpoint_here());
}

BOOST_AUTO_TEST_CASE(shutdown_ends_accept)
{
    check_shutdown_ends_accept(endpoint_here());
}

BOOST_AUTO_TEST_CASE(connecting_to_nobody_names_the_endpoint)
{
    auto gone = endpoint_here();
    gone.port = 9;
    const auto refused = connect(gone, 5'000);
    BOOST_REQUIRE(!refused.ok());
    BOOST_TEST((refused.error().code() == ErrorCode::kUnavailable), refused.error().message());
    BOOST_TEST(refused.error().message().find(gone.to_string()) != std::string::npos);
}

BOOST_AUTO_TEST_CASE(connecting_has_a_deadline)
{
    const auto door = listen(endpoint_here());
    BOOST_REQUIRE(door.ok());
    const auto start_ms = now_ms();
    const auto nobody = connect((*door)->endpoint(), 300);
    BOOST_REQUIRE(!nobody.ok());
    BOOST_TEST((nobody.error().code() == ErrorCode::kTimeout), nobody.error().message());
    BOOST_TEST(now_ms() - start_ms < 5'000u);
}

BOOST_AUTO_TEST_CASE(names_its_peer)
{
    auto [a, b] = connection_pair(Transport::kStream);
    BOOST_TEST(a->peer().starts_with("rdma:"));
    BOOST_TEST(b->peer().starts_with("rdma:"));
}

BOOST_AUTO_TEST_CASE(carries_large_messages_both_ways_at_once)
{
    auto [a, b] = connection_pair(Transport::kStream, 30'000);
    auto data = pattern(kMaxDataBytes);
    const auto vector = vector_over(data);
    std::atomic<int> wrong{0};
    const auto sends = [&](Connection& end) {
        for (int i = 0; i < 3; ++i) {
            if (!end.send({.kind = 1, .head = {}, .data = {&vector, 1}})) ++wrong;
        }
    };
    const auto receives = [&](Connection& end) {
        std::vector<std::byte> received(data.size());
        const auto into = vector_over(received);
        for (int i = 0; i < 3; ++i) {
            std::ranges::fill(received, std::byte{});
            if (!end.receive(30'000) || !end.receive_data({&into, 1}) || received != data) ++wrong;
        }
    };
    std::vector<std::thread> threads;
    for (auto* end : {a.get(), b.get()}) {
        threads.emplace_back([&, end] { sends(*end); });
        threads.emplace_back([&, end] { receives(*end); });
    }
    for (auto& thread : threads) thread.join();
    BOOST_TEST(wrong == 0);
}

// Far more messages than buffers, all one way: the credits must come back without any traffic of the other's.
BOOST_AUTO_TEST_CASE(credits_come_back_without_replies)
{
    auto [a, b] = connection_pair(Transport::kStream, 20'000);
    std::thread sender{[&, &end = *a] {
        for (std::uint64_t id = 0; id < 3'000; ++id) {
            if (!end.send({.kind = 1, .request_id = id, .head = bytes_of(id), .data = {}})) break;
        }
    }};
    std::uint64_t right = 0;
    for (std::uint64_t id = 0; id < 3'000; ++id) {
        const auto incoming = b->receive(20'000);
        if (!incoming) break;
        if (incoming->request_id == id) ++right;
    }
    sender.join();
    BOOST_TEST(right == 3'000u);
}

BOOST_AUTO_TEST_CASE(serves_many_connections)
{
    constexpr int kConnections = 40;
    const auto door = listen(endpoint_here());
    BOOST_REQUIRE(door.ok());
    std::vector<std::unique_ptr<Connection>> servers;
    std::thread acceptor{[&] {
        while (auto connection = (*door)->accept()) servers.push_back(std::move(*connection));
    }};
    std::vector<std::unique_ptr<Connection>> clients;
    for (int i = 0; i < kConnections; ++i) {
        auto client = connect((*door)->endpoint(), 10'000);
        if (client) clients.push_back(std::move(*client));
    }
    (*door)->shutdown();
    acceptor.join();
    BOOST_REQUIRE(clients.size() == kConnections);
    BOOST_REQUIRE(servers.size() == kConnections);
    auto data = pattern(20'000);
    int good = 0;
    for (std::size_t i = 0; i < kConnections; ++i) {
        std::thread server{[&] { static_cast<void>(echo_once(*servers[i])); }};
        if (ask_once(*clients[i], data)) ++good;
        server.join();
    }
    BOOST_TEST(good == kConnections);
}

BOOST_AUTO_TEST_CASE(last_words_arrive_before_the_end)
{
    auto [a, b] = connection_pair(Transport::kStream);
    auto data = pattern(100'000);
    const auto vector = vector_over(data);
    BOOST_REQUIRE(b->send({.kind = 9, .head = {}, .data = {&vector, 1}}).ok());
    b.reset();
    const auto incoming = a->receive(5'000);
    BOOST_REQUIRE(incoming.ok());
    std::vector<std::byte> received(data.size());
    const auto into = vector_over(received);
    BOOST_TEST(a->receive_data({&into, 1}).ok());
    BOOST_TEST((received == data));
    BOOST_TEST((a->receive(5'000).error().code() == ErrorCode::kUnavailable));
    BOOST_TEST((a->send({.kind = 1, .head = {}, .data = {}}).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_CASE(a_peer_that_takes_nothing_loses_the_connection)
{
    auto [a, b] = connection_pair(Transport::kStream, 500);
    auto data = pattern(kMaxDataBytes);
    const auto vector = vector_over(data);
    const auto start_ms = now_ms();
    BOOST_TEST(
        (a->send({.kind = 1, .head = {}, .data = {&vector, 1}}).error().code() == ErrorCode::kTimeout));
    BOOST_TEST(now_ms() - start_ms < 5'000u);
    BOOST_TEST((a->send({.kind = 1, .head = {}, .data = {}}).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_CASE(a_peer_killed_in_the_middle_is_noticed)
{
    const auto waited_ms = end_in_the_middle(SIGKILL, 20'000, ErrorCode::kUnavailable);
    BOOST_TEST(waited_ms < 10'000u, "well before the message's limit");
}

BOOST_AUTO_TEST_CASE(a_peer_that_hangs_in_the_middle_loses_the_connection)
{
    BOOST_TEST(end_in_the_middle(SIGSTOP, 1'000, ErrorCode::kTimeout) < 10'000u);
}

BOOST_AUTO_TEST_CASE(an_idle_peer_that_is_killed_is_noticed)
{
    const auto door = listen(endpoint_here());
    BOOST_REQUIRE(door.ok());
    const Child child{"connects_and_waits", (*door)->endpoint()};
    const auto connection = (*door)->accept();
    BOOST_REQUIRE(connection.ok());
    BOOST_REQUIRE((*connection)->receive(20'000).ok());
    child.signal(SIGKILL);
    BOOST_TEST(((*connection)->receive(20'000).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_SUITE_END()

// Run by Child, in a process of their own.
BOOST_AUTO_TEST_SUITE(child, *boost::unit_test::disabled())

BOOST_AUTO_TEST_CASE(sends_a_large_message)
{
    auto connection = std::move(connect(endpoint_here(), 10'000, 60'000)).value();
    auto data = pattern(kMaxDataBytes);
    const auto vector = vector_over(data);
    static_cast<void>(connection->send({.kind = 1, .head = {}, .data = {&vector, 1}}));
}

BOOST_AUTO_TEST_CASE(connects_and_waits)
{
    auto connection = std::move(connect(endpoint_here(), 10'000)).value();
    static_cast<void>(connection->send({.kind = 1, .head = {}, .data = {}}));
    static_cast<void>(connection->receive(60'000));
}

BOOST_AUTO_TEST_SUITE_END()

// Ratios only: a lab host is emulated. Interleaved, so that both meet the same host.
BOOST_AUTO_TEST_SUITE(figures, *boost::unit_test::disabled())

BOOST_AUTO_TEST_CASE(round_trips)
{
    auto tcp = endpoint_here();
    tcp.scheme = Endpoint::Scheme::kTcp;
    for (const std::size_t size : {std::size_t{128}, std::size_t{kPageBytes}}) {
        for (int pair = 0; pair < 3; ++pair) {
            const auto ours_us = median_round_trip_us(endpoint_here(), size, 300);
            const auto tcp_us = median_round_trip_us(tcp, size, 300);
            std::printf("round trip of %zu bytes: rdma / tcp = %.2f\n", size, ours_us / tcp_us);
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::fabric
