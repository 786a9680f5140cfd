#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <optional>
#include <random>
#include <thread>

#include "base/clock.h"
#include "tests/unit/fabric/socket_pair.h"

namespace splitvisor::fabric {

constexpr int kLimitMs = 200;

/// A connection whose peer is played by the test, byte by byte.
struct Victim {
    Fd peer;
    Mapping peer_memory;               ///< shm only
    std::optional<RingWriter> writer;  ///< shm only
    std::unique_ptr<Connection> connection;

    explicit Victim(Transport transport, int message_limit_ms = kLimitMs)
    {
        auto ends = socket_pair();
        peer = std::move(ends[0]);
        if (transport == Transport::kStream) {
            connection = std::make_unique<StreamConnection>(std::move(ends[1]), "peer", message_limit_ms);
            return;
        }
        auto memory = shared_layout();
        peer_memory = std::move(memory[0]);
        writer.emplace(layout().control[0], std::span<std::byte, kRingBytes>{layout().bytes[0]});
        connection =
            std::make_unique<ShmConnection>(std::move(ends[1]), std::move(memory[1]),
                                            ShmConnection::Side::kListening, "peer", message_limit_ms);
    }
    [[nodiscard]] ShmLayout& layout() const { return *reinterpret_cast<ShmLayout*>(peer_memory.data()); }

    void write(std::span<const std::byte> bytes)
    {
        if (!writer) return SPLITVISOR_CHECK(write_all(peer.get(), bytes).ok());
        const iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
        SPLITVISOR_CHECK(writer->write({&vector, 1}) == bytes.size());
    }
    /// False where the connection has ended.
    [[nodiscard]] bool try_write(std::byte byte)
    {
        if (!writer) return ::send(peer.get(), &byte, 1, MSG_NOSIGNAL) == 1;
        if (layout().closed.load() != 0) return false;
        write({&byte, 1});
        return true;
    }
    /// What a peer that died does: nothing but its socket tells.
    void end() const { ::shutdown(peer.get(), SHUT_WR); }
    /// Takes one message as a careful caller does.
    [[nodiscard]] Status take() const
    {
        const auto incoming = connection->receive(1'000);
        if (!incoming) return incoming.error();
        std::vector<std::byte> data(incoming->data_bytes);
        const iovec into{data.data(), data.size()};
        return connection->receive_data({&into, 1});
    }
};

BOOST_AUTO_TEST_SUITE(hostile_stream)

BOOST_DATA_TEST_CASE(notices_each_flipped_bit, kTransports, transport)
{
    const auto frame = frame_of(pattern(24), pattern(50, 2));
    for (std::size_t position = 0; position < frame.size(); ++position) {
        for (const auto bit : {0, 3, 7}) {
            Victim victim{transport};
            auto damaged = frame;
            damaged[position] ^= static_cast<std::byte>(1 << bit);
            victim.write(damaged);
            victim.end();
            const auto taken = victim.take();
            BOOST_TEST(!taken.ok(), "byte " << position);
            if (taken.ok()) continue;
            // A damaged length may make the receiver wait for bytes that never come; the end of the stream
            // ends that.
            const bool length_field =
                position >= offsetof(FrameHeader, head_bytes) && position < offsetof(FrameHeader, data_crc);
            const auto code = taken.error().code();
            BOOST_TEST((code == ErrorCode::kCorrupt || (length_field && code == ErrorCode::kUnavailable)));
            BOOST_TEST((victim.connection->receive(0).error().code() == ErrorCode::kUnavailable),
                       "it stays unusable");
        }
    }
}

BOOST_DATA_TEST_CASE(notices_an_end_at_each_byte, kTransports, transport)
{
    const auto frame = frame_of(pattern(24), pattern(50, 2));
    for (std::size_t length = 0; length < frame.size(); ++length) {
        Victim victim{transport};
        victim.write(std::span{frame}.first(length));
        victim.end();
        const auto taken = victim.take();
        BOOST_REQUIRE(!taken.ok());
        BOOST_TEST((taken.error().code() == ErrorCode::kUnavailable), "length " << length);
    }
}

BOOST_DATA_TEST_CASE(takes_a_message_that_arrives_byte_by_byte, kTransports, transport)
{
    Victim victim{transport, 5'000};
    const auto frame = frame_of(pattern(24), pattern(50, 2));
    std::thread peer{[&] {
        for (int round = 0; round < 3; ++round) {
            for (std::size_t i = 0; i < frame.size(); ++i) victim.write(std::span{frame}.subspan(i, 1));
        }
    }};
    const bool good = victim.take().ok() && victim.take().ok() && victim.take().ok();
    peer.join();
    BOOST_TEST(good);
}

// The bound holds for the message as a whole: a peer that feeds a byte now and then gains nothing.
BOOST_DATA_TEST_CASE(a_peer_that_stalls_loses_the_connection, kTransports, transport)
{
    const auto frame = frame_of(pattern(24), pattern(50'000, 2));
    for (const std::size_t length : {std::size_t{1}, std::size_t{33}, std::size_t{56}, std::size_t{40'000}}) {
        for (const bool trickle : {false, true}) {
            Victim victim{transport};
            victim.write(std::span{frame}.first(length));
            std::atomic<bool> stop{false};
            std::thread peer{[&] {
                for (std::size_t i = length; trickle && !stop && i < frame.size(); ++i) {
                    if (!victim.try_write(frame[i])) break;
                    std::this_thread::sleep_for(std::chrono::milliseconds{20});
                }
            }};
            const auto start_ms = now_ms();
            const auto taken = victim.take();
            stop = true;
            peer.join();
            BOOST_TEST(!taken.ok());
            BOOST_TEST(now_ms() - start_ms < 10u * kLimitMs);
            BOOST_TEST((victim.connection->receive(0).error().code() == ErrorCode::kUnavailable));
        }
    }
}

BOOST_DATA_TEST_CASE(a_peer_that_takes_nothing_loses_the_connection, kTransports, transport)
{
    Victim victim{transport};
    auto data = pattern(kMaxDataBytes);
    const auto vector = vector_over(data);
    const auto start_ms = now_ms();
    const auto sent = victim.connection->send({.kind = 1, .head = {}, .data = {&vector, 1}});
    BOOST_TEST((sent.error().code() == ErrorCode::kTimeout));
    BOOST_TEST(now_ms() - start_ms < 10u * kLimitMs);
    BOOST_TEST((victim.connection->send({.kind = 1, .head = {}, .data = {}}).error().code() ==
                ErrorCode::kUnavailable));
}

BOOST_DATA_TEST_CASE(refuses_lengths_above_the_limits_at_once, kTransports, transport)
{
    const auto with_lengths = [&](std::uint32_t head_bytes, std::uint32_t data_bytes) {
        FrameHeader header{kFrameMagic, 1, 0, 1, head_bytes, data_bytes, 0, 0};
        header.head_crc = head_crc_of(header, {});
        Victim victim{transport, 60'000};
        victim.write(bytes_of(header));
        return victim.take().error().code();
    };
    BOOST_TEST((with_lengths(kMaxHeadBytes + 1, 0) == ErrorCode::kCorrupt));
    BOOST_TEST((with_lengths(0, kMaxDataBytes + 1) == ErrorCode::kCorrupt));
    BOOST_TEST((with_lengths(~0u, ~0u) == ErrorCode::kCorrupt));
}

// Random bytes, and good frames with random damage, in random pieces: nothing but an error or a good message
// may come of it, within the bound, and never a message whose bytes nobody sent.
BOOST_DATA_TEST_CASE(survives_random_bytes, kTransports, transport)
{
    std::mt19937 random{20240607};
    const auto below = [&](std::size_t limit) {
        return std::uniform_int_distribution<std::size_t>{0, limit - 1}(random);
    };
    std::size_t accepted = 0;
    for (int round = 0; round < 3'000; ++round) {
        Victim victim{transport, 1'000};
        std::vector<std::byte> bytes;
        std::size_t good_frames = 0;
        for (std::size_t frames = below(4); frames > 0; --frames) {
            const auto frame = frame_of(pattern(below(200)), pattern(below(6'000)));
            bytes.insert(bytes.end(), frame.begin(), frame.end());
            ++good_frames;
        }
        const bool damage = below(2) == 0;
        if (damage && !bytes.empty()) {
            bytes[below(bytes.size())] ^= static_cast<std::byte>(1 + below(255));
        } else {
            const auto noise = pattern(below(300), static_cast<std::uint32_t>(random()));
            bytes.insert(bytes.end(), noise.begin(), noise.end());
        }
        victim.write(bytes);
        victim.end();
        std::size_t taken = 0;
        while (taken <= good_frames && victim.take().ok()) ++taken;
        BOOST_TEST(taken <= good_frames);
        if (damage && good_frames > 0) BOOST_TEST(taken < good_frames);
        if (!damage) BOOST_TEST(taken == good_frames);
        accepted += taken;
    }
    BOOST_TEST(accepted > 1'000u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::fabric
