#include "vstore/flight_table.h"

#include <random>

#include "fixtures.h"

namespace splitvisor::vstore {

static Flight* admit(FlightTable& table, BlockKind kind, std::uint64_t offset, std::uint64_t length)
{
    BlockRequest request{kind, offset, length, {}, [](const Status&) {}};
    return table.admit(request);
}

static Flight& send_next(FlightTable& table)
{
    Flight* const flight = table.take_queued();
    BOOST_REQUIRE(flight != nullptr);
    flight->state = Flight::State::kSent;
    return *flight;
}

BOOST_AUTO_TEST_SUITE(flight_table)

BOOST_AUTO_TEST_CASE(overlapping_changes_wait_for_each_other)
{
    FlightTable table;
    const auto* const first = admit(table, BlockKind::kWrite, 0, 4096);
    const auto* const second = admit(table, BlockKind::kDiscard, 512, 512);
    const auto* const apart = admit(table, BlockKind::kWrite, 4096, 4096);
    const auto* const third = admit(table, BlockKind::kWriteZeroes, 0, 8192);
    const auto* const read = admit(table, BlockKind::kRead, 0, 8192);
    BOOST_TEST((second->state == Flight::State::kHeld));
    BOOST_TEST((third->state == Flight::State::kHeld));

    auto& sent_first = send_next(table);
    auto& sent_apart = send_next(table);
    auto& sent_read = send_next(table);
    BOOST_TEST(&sent_first == first);
    BOOST_TEST(&sent_apart == apart);
    BOOST_TEST(&sent_read == read);
    BOOST_TEST(!table.has_queued());

    BOOST_REQUIRE(table.finish_piece(sent_first));
    table.remove(sent_first);
    auto& sent_second = send_next(table);
    BOOST_TEST(&sent_second == second);
    BOOST_TEST(!table.has_queued());
    table.remove(sent_second);
    BOOST_TEST(!table.has_queued());
    table.remove(sent_apart);
    BOOST_TEST(&send_next(table) == third);
}

BOOST_AUTO_TEST_CASE(long_requests_go_in_pieces)
{
    FlightTable table;
    admit(table, BlockKind::kRead, 0, 2 * kMaxRequestBytes + 512);
    admit(table, BlockKind::kDiscard, 0, 100 * kMaxRequestBytes);
    std::uint64_t last_id = 0;
    std::vector<std::uint64_t> pieces;
    for (bool done = false; !done;) {
        auto& flight = send_next(table);
        if (flight.request.kind == BlockKind::kDiscard) {
            BOOST_TEST(flight.piece_bytes == 100 * kMaxRequestBytes);
            continue;
        }
        pieces.push_back(flight.piece_bytes);
        BOOST_TEST(flight.wire_id > last_id);
        BOOST_TEST(table.find_sent(flight.wire_id) == &flight);
        BOOST_TEST(table.find_sent(last_id) == nullptr);
        last_id = flight.wire_id;
        done = table.finish_piece(flight);
    }
    BOOST_TEST(pieces == (std::vector<std::uint64_t>{kMaxRequestBytes, kMaxRequestBytes, 512}),
               boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(it_holds_as_many_as_it_says)
{
    FlightTable table;
    for (std::size_t i = 0; i < kMaxInFlight; ++i) BOOST_REQUIRE(admit(table, BlockKind::kRead, 0, 512) != nullptr);
    BOOST_TEST(admit(table, BlockKind::kRead, 0, 512) == nullptr);
    table.remove(send_next(table));
    BOOST_TEST(admit(table, BlockKind::kRead, 0, 512) != nullptr);
    for (auto& flight = send_next(table); table.has_queued();) BOOST_TEST(send_next(table).order > flight.order);
    BOOST_TEST(table.remove_all().size() == kMaxInFlight);
    BOOST_TEST(table.size() == 0u);
}

BOOST_AUTO_TEST_CASE(after_a_loss_everything_is_sent_again_in_order_and_nothing_overlaps)
{
    std::mt19937_64 random{3};
    FlightTable table;
    std::vector<Flight*> sent;
    for (int round = 0; round < 50'000; ++round) {
        const auto choice = random() % 100;
        if (choice < 45) {
            const auto kind = static_cast<BlockKind>(random() % 5);
            const bool flush = kind == BlockKind::kFlush;
            admit(table, kind, flush ? 0 : random() % 64 * 512, flush ? 0 : (1 + random() % 16) * 512);
        } else if (choice < 80) {
            if (table.has_queued()) sent.push_back(&send_next(table));
        } else if (choice < 99) {
            if (sent.empty()) continue;
            const auto index = random() % sent.size();
            BOOST_REQUIRE(table.finish_piece(*sent[index]));
            table.remove(*sent[index]);
            sent.erase(sent.begin() + static_cast<std::ptrdiff_t>(index));
        } else {
            table.requeue_sent();
            std::uint64_t last = 0;
            for (std::size_t i = 0; i < sent.size(); ++i) {
                sent[i] = &send_next(table);
                BOOST_REQUIRE((i == 0 || sent[i]->order > last));
                last = sent[i]->order;
            }
        }
        for (const auto* const a : sent) {
            for (const auto* const b : sent) {
                if (a == b || !changes_data(a->request.kind) || !changes_data(b->request.kind)) continue;
                BOOST_REQUIRE((a->request.offset >= b->request.offset + b->request.length ||
                               b->request.offset >= a->request.offset + a->request.length));
            }
        }
    }
    // Nothing is held for ever.
    while (table.size() > 0) {
        while (table.has_queued()) sent.push_back(&send_next(table));
        BOOST_REQUIRE(!sent.empty());
        table.remove(*sent.back());
        sent.pop_back();
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
