#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <thread>

#include "base/clock.h"
#include "tests/unit/fabric/socket_pair.h"

namespace splitvisor::fabric {

BOOST_AUTO_TEST_SUITE(stream)

BOOST_DATA_TEST_CASE(carries_every_field, kTransports, transport)
{
    auto [a, b] = connection_pair(transport);
    const auto head = pattern(100);
    auto data = pattern(9'000, 2);
    const auto vector = vector_over(data);
    BOOST_REQUIRE(
        a->send({.kind = 3, .status = 9, .request_id = ~0ull, .head = head, .data = {&vector, 1}}).ok());

    const auto incoming = b->receive(1'000);
    BOOST_REQUIRE(incoming.ok());
    BOOST_TEST(incoming->kind == 3);
    BOOST_TEST(incoming->status == 9);
    BOOST_TEST(incoming->request_id == ~0ull);
    BOOST_REQUIRE(incoming->data_bytes == data.size());
    std::vector<std::byte> received(data.size());
    const auto into = vector_over(received);
    BOOST_REQUIRE(b->receive_data({&into, 1}).ok());
    BOOST_TEST((received == data));
    BOOST_TEST((std::vector(incoming->head.begin(), incoming->head.end()) == head),
               "the head outlives the data");
}

// Every split of the same bytes over gather and scatter vectors gives the same data, whatever the buffer read
// ahead.
BOOST_DATA_TEST_CASE(gathers_and_scatters, kTransports, transport)
{
    auto [a, b] = connection_pair(transport);
    for (const std::size_t size : {1u, 31u, 4'096u, 8'191u, 8'192u, 8'193u, 100'000u}) {
        for (const std::size_t pieces : {1u, 3u, 16u}) {
            auto data = pattern(size, static_cast<std::uint32_t>(size + pieces));
            std::vector<iovec> from;
            for (std::size_t i = 0; i < pieces; ++i) {
                const auto begin = size * i / pieces;
                from.push_back({data.data() + begin, size * (i + 1) / pieces - begin});
            }
            std::vector<std::byte> received(size);
            const std::vector<iovec> into{{received.data(), size / 3},
                                          {received.data(), 0},
                                          {received.data() + size / 3, size - size / 3}};
            const auto head = pattern(size % 77);
            std::thread sender{[&, &sender_end = a] {
                SPLITVISOR_CHECK(sender_end->send({.kind = 1, .head = head, .data = from}).ok());
            }};
            const auto incoming = b->receive(5'000);
            const bool good = incoming.ok() && incoming->data_bytes == size && b->receive_data(into).ok();
            sender.join();
            BOOST_TEST(good);
            BOOST_TEST((received == data));
        }
    }
}

BOOST_DATA_TEST_CASE(sends_more_vectors_than_one_system_call_takes, kTransports, transport)
{
    auto [a, b] = connection_pair(transport);
    constexpr std::size_t kPieces = 3'000;
    auto data = pattern(kPieces * 7);
    std::vector<iovec> from;
    std::vector<iovec> into;
    std::vector<std::byte> received(data.size());
    for (std::size_t i = 0; i < kPieces; ++i) {
        from.push_back({data.data() + i * 7, 7});
        into.push_back({received.data() + i * 7, 7});
    }
    std::thread sender{
        [&, &end = a] { SPLITVISOR_CHECK(end->send({.kind = 1, .head = {}, .data = from}).ok()); }};
    const auto incoming = b->receive(5'000);
    const bool good = incoming.ok() && b->receive_data(into).ok();
    sender.join();
    BOOST_TEST(good);
    BOOST_TEST((received == data));
}

BOOST_DATA_TEST_CASE(carries_the_largest_message_and_refuses_a_larger_one, kTransports, transport)
{
    auto [a, b] = connection_pair(transport);
    const auto head = pattern(kMaxHeadBytes);
    auto data = pattern(kMaxDataBytes);
    const auto vector = vector_over(data);
    std::thread sender{[&, &end = a] {
        SPLITVISOR_CHECK(end->send({.kind = 1, .head = head, .data = {&vector, 1}}).ok());
    }};
    const auto incoming = b->receive(5'000);
    std::vector<std::byte> received(data.size());
    const auto into = vector_over(received);
    const bool good = incoming.ok() && b->receive_data({&into, 1}).ok();
    sender.join();
    BOOST_REQUIRE(good);
    BOOST_TEST((received == data));
    BOOST_TEST((std::vector(incoming->head.begin(), incoming->head.end()) == head));

    std::byte one{};
    const std::array<iovec, 2> too_much{vector, iovec{&one, 1}};
    BOOST_TEST((a->send({.kind = 1, .head = {}, .data = too_much}).error().code() == ErrorCode::kInvalid));
    const std::array<iovec, 2> overflowing{iovec{&one, 1}, iovec{&one, ~std::size_t{0}}};
    BOOST_TEST((a->send({.kind = 1, .head = {}, .data = overflowing}).error().code() == ErrorCode::kInvalid));
    const std::vector<std::byte> large_head(kMaxHeadBytes + 1);
    BOOST_TEST((a->send({.kind = 1, .head = large_head, .data = {}}).error().code() == ErrorCode::kInvalid));
    BOOST_REQUIRE_MESSAGE(a->send({.kind = 5, .head = {}, .data = {}}).ok(),
                          "a refused message costs nothing");
    BOOST_TEST(b->receive(1'000)->kind == 5);
}

BOOST_DATA_TEST_CASE(keeps_the_order_and_skips_data, kTransports, transport)
{
    auto [a, b] = connection_pair(transport);
    auto data = pattern(60'000);
    const auto vector = vector_over(data);
    std::thread sender{[&, &end = a] {
        for (std::uint64_t id = 0; id < 200; ++id) {
            const auto bytes = id % 3 == 0 ? std::span<const iovec>{} : std::span<const iovec>{&vector, 1};
            SPLITVISOR_CHECK(
                end->send({.kind = 1, .request_id = id, .head = bytes_of(id), .data = bytes}).ok());
        }
    }};
    std::uint64_t wrong = 0;
    std::vector<std::byte> received(data.size());
    for (std::uint64_t id = 0; id < 200; ++id) {
        const auto incoming = b->receive(5'000);
        if (!incoming || incoming->request_id != id) ++wrong;
        if (!incoming) break;
        const auto into = iovec{received.data(), incoming->data_bytes};
        if (!(id % 2 == 0 ? b->skip_data() : b->receive_data({&into, 1}))) ++wrong;
        if (load<std::uint64_t>(incoming->head) != id) ++wrong;
    }
    sender.join();
    BOOST_TEST(wrong == 0u);
}

BOOST_DATA_TEST_CASE(a_timeout_between_messages_costs_nothing, kTransports, transport)
{
    auto [a, b] = connection_pair(transport);
    const auto start_ms = now_ms();
    BOOST_TEST((b->receive(50).error().code() == ErrorCode::kTimeout));
    BOOST_TEST(now_ms() - start_ms >= 49u);
    BOOST_TEST((b->receive(0).error().code() == ErrorCode::kTimeout));
    BOOST_REQUIRE(a->send({.kind = 2, .head = {}, .data = {}}).ok());
    BOOST_TEST(b->receive(1'000)->kind == 2);
}

BOOST_DATA_TEST_CASE(shutdown_wakes_a_receiver_and_a_sender, kTransports, transport)
{
    auto [a, b] = connection_pair(transport, 60'000);
    auto data = pattern(kMaxDataBytes);
    const auto vector = vector_over(data);
    std::optional<ErrorCode> sent;
    std::optional<ErrorCode> received;
    std::thread sender{[&, &end = a] {
        sent = end->send({.kind = 1, .head = {}, .data = {&vector, 1}}).error().code();
    }};
    std::thread receiver{[&, &end = a] { received = end->receive(-1).error().code(); }};
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
    a->shutdown();
    sender.join();
    receiver.join();
    BOOST_TEST((sent == ErrorCode::kUnavailable));
    BOOST_TEST((received == ErrorCode::kUnavailable));
    BOOST_TEST((a->send({.kind = 1, .head = {}, .data = {}}).error().code() == ErrorCode::kUnavailable));
    BOOST_TEST((a->receive(-1).error().code() == ErrorCode::kUnavailable));
    // The beginning of the large message had arrived; its data ends early.
    BOOST_TEST((!b->receive(1'000).ok() || !b->skip_data().ok()));
}

BOOST_DATA_TEST_CASE(counts_its_traffic, kTransports, transport)
{
    auto [a, b] = connection_pair(transport);
    const auto before = traffic();
    auto data = pattern(1'000);
    const auto vector = vector_over(data);
    BOOST_REQUIRE(a->send({.kind = 1, .head = bytes_of(1u), .data = {&vector, 1}}).ok());
    BOOST_REQUIRE(b->receive(1'000).ok());
    BOOST_REQUIRE(b->skip_data().ok());
    const auto after = traffic();
    BOOST_TEST(after.sent_bytes - before.sent_bytes == 1'036u);
    BOOST_TEST(after.received_bytes - before.received_bytes == 1'036u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::fabric
