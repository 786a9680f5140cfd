#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "base/clock.h"
#include "base/units.h"
#include "tests/fakes/temporary_directory.h"
#include "tests/unit/fabric/listener_checks.h"
#include "tests/unit/fabric/socket_pair.h"

namespace splitvisor::fabric {

namespace {

void echo_one_page(const Endpoint& endpoint)
{
    auto listener = listen(endpoint);
    BOOST_REQUIRE_MESSAGE(listener.ok(), endpoint.to_string());
    auto data = pattern(kPageBytes);
    std::thread server{[&, &door = *listener] {
        auto connection = door->accept();
        SPLITVISOR_CHECK(connection.ok());
        const auto incoming = (*connection)->receive(5'000);
        SPLITVISOR_CHECK(incoming.ok());
        std::vector<std::byte> bytes(incoming->data_bytes);
        const auto vector = vector_over(bytes);
        SPLITVISOR_CHECK((*connection)->receive_data({&vector, 1}).ok());
        SPLITVISOR_CHECK((*connection)->send({.kind = 1, .head = {}, .data = {&vector, 1}}).ok());
    }};
    auto client = connect((*listener)->endpoint(), 1'000);
    std::vector<std::byte> received(data.size());
    bool good = client.ok();
    if (good) {
        const auto vector = vector_over(data);
        const auto into = vector_over(received);
        good = (*client)->send({.kind = 1, .head = {}, .data = {&vector, 1}}).ok() &&
               (*client)->receive(5'000).ok() && (*client)->receive_data({&into, 1}).ok();
    }
    server.join();
    BOOST_TEST(good);
    BOOST_TEST((received == data));
}

}  // namespace

constexpr std::array kSchemes{"tcp:", "unix:", "shm:"};
constexpr std::array kPathSchemes{"unix:", "shm:"};

BOOST_AUTO_TEST_SUITE(listener)

BOOST_AUTO_TEST_CASE(carries_a_page_over_each_transport)
{
    const fakes::TemporaryDirectory directory;
    echo_one_page(endpoint_of("tcp:127.0.0.1:0"));
    echo_one_page(endpoint_of("localhost:0"));
    echo_one_page(endpoint_of("unix:" + directory.path() + "/door"));
    echo_one_page(endpoint_of("shm:" + directory.path() + "/door"));
}

BOOST_AUTO_TEST_CASE(tells_the_port_the_kernel_chose)
{
    check_chosen_ports(endpoint_of("tcp:127.0.0.1:0"));
}

BOOST_AUTO_TEST_CASE(shutdown_ends_accept)
{
    const fakes::TemporaryDirectory directory;
    for (const auto& text : {std::string{"tcp:127.0.0.1:0"}, "unix:" + directory.path() + "/door",
                             "shm:" + directory.path() + "/door"}) {
        check_shutdown_ends_accept(endpoint_of(text));
    }
}

BOOST_AUTO_TEST_CASE(connecting_to_nobody_names_the_endpoint)
{
    Endpoint gone;
    {
        const auto door = listen(endpoint_of("tcp:127.0.0.1:0"));
        gone = (*door)->endpoint();
    }
    const auto refused = connect(gone, 1'000);
    BOOST_REQUIRE(!refused.ok());
    BOOST_TEST((refused.error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(refused.error().message().find(gone.to_string()) != std::string::npos);
    BOOST_TEST(
        (connect(endpoint_of("unix:/nonexistent/door"), 100).error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(!connect(endpoint_of("tcp:no-such-host.invalid:1"), 100).ok());
}

BOOST_AUTO_TEST_CASE(says_that_there_is_no_rdma_device)
{
    if (std::filesystem::exists("/dev/infiniband/rdma_cm")) return;
    const auto endpoint = endpoint_of("rdma:127.0.0.1:7801");
    for (const auto& error : {listen(endpoint).error(), connect(endpoint, 1'000).error()}) {
        BOOST_TEST((error.code() == ErrorCode::kUnsupported));
        BOOST_TEST(error.message() == "rdma:127.0.0.1:7801: no RDMA device for it on this host");
    }
    BOOST_TEST(
        (connect(endpoint_of("rdma:no-such-host.invalid:1"), 100).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_CASE(connecting_has_a_deadline)
{
    // A listener whose queue is full and who never accepts: the kernel drops further SYNs.
    Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const auto taken = listen(endpoint_of("tcp:127.0.0.1:0"));
    BOOST_REQUIRE(taken.ok());
    std::vector<std::unique_ptr<Connection>> queue;
    const auto start_ms = now_ms();
    for (int i = 0; i < 400; ++i) {
        auto connection = connect((*taken)->endpoint(), 100);
        if (!connection) {
            BOOST_TEST((connection.error().code() == ErrorCode::kTimeout));
            BOOST_TEST(now_ms() - start_ms < 5'000u);
            return;
        }
        queue.push_back(std::move(*connection));
    }
    BOOST_TEST(false, "the queue never filled");
}

BOOST_DATA_TEST_CASE(replaces_only_a_dead_socket, kPathSchemes, scheme)
{
    const fakes::TemporaryDirectory directory;
    const auto text = scheme + (directory.path() + "/door");
    {
        // A process that was killed leaves its socket file behind.
        Fd dead{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        auto first = listen(endpoint_of(text));
        BOOST_REQUIRE(first.ok());
        BOOST_TEST((listen(endpoint_of(text)).error().code() == ErrorCode::kExists),
                   "a live one is not touched");
        std::filesystem::rename(directory.path() + "/door", directory.path() + "/kept");
        first = Error{ErrorCode::kUnavailable, "gone"};
        std::filesystem::rename(directory.path() + "/kept", directory.path() + "/door");
    }
    BOOST_TEST(listen(endpoint_of(text)).ok());
    BOOST_TEST(!std::filesystem::exists(directory.path() + "/door"), "the listener cleans up");

    std::FILE* file = std::fopen((directory.path() + "/door").c_str(), "w");
    BOOST_REQUIRE(file != nullptr);
    std::fclose(file);
    BOOST_TEST((listen(endpoint_of(text)).error().code() == ErrorCode::kExists));
    BOOST_TEST(std::filesystem::exists(directory.path() + "/door"), "a file of somebody's is not touched");
}

BOOST_DATA_TEST_CASE(a_closed_peer_ends_both_directions, kSchemes, scheme)
{
    const fakes::TemporaryDirectory directory;
    const std::string text{scheme};
    const auto door =
        listen(endpoint_of(text == "tcp:" ? text + "127.0.0.1:0" : text + directory.path() + "/door"));
    BOOST_REQUIRE(door.ok());
    auto client = connect((*door)->endpoint(), 1'000);
    BOOST_REQUIRE(client.ok());
    {
        const auto server = (*door)->accept();
        BOOST_REQUIRE(server.ok());
    }
    BOOST_TEST(((*client)->receive(1'000).error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(
        ((*client)->send({.kind = 1, .head = {}, .data = {}}).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::fabric
