#include <atomic>
#include <functional>
#include <thread>

#include "base/bytes.h"
#include "fixtures.h"

namespace splitvisor::vstore {

namespace {

/// A monitor that opens every session and then answers as the test says.
class FakeMonitor {
  public:
    /// Answers one request; false ends the connection. `round` counts connections from 0.
    using Answer = std::function<bool(fabric::Connection&, const fabric::Incoming&, int round)>;

    explicit FakeMonitor(Answer answer) : answer_{std::move(answer)}
    {
        auto listener =
            fabric::listen({.scheme = fabric::Endpoint::Scheme::kTcp, .host = "127.0.0.1", .port = 0});
        BOOST_REQUIRE(listener.ok());
        listener_ = std::move(*listener);
        thread_ = std::thread{[this] { serve(); }};
    }
    ~FakeMonitor()
    {
        stopping_ = true;
        listener_->shutdown();
        thread_.join();
    }
    [[nodiscard]] RemoteVolumeOptions options() const
    {
        RemoteVolumeOptions options;
        options.name = "test";
        options.endpoint = listener_->endpoint();
        options.volume = VolumeId{1};
        options.silence_ms = 400;
        return options;
    }
    static bool reply(fabric::Connection& connection, std::uint16_t kind, std::uint16_t status, std::uint64_t id,
                      std::span<const std::byte> head, std::span<const std::byte> data)
    {
        const iovec vector{const_cast<std::byte*>(data.data()), data.size()};
        return connection
            .send({.kind = kind,
                   .status = status,
                   .request_id = id,
                   .head = head,
                   .data = {&vector, data.empty() ? 0u : 1u}})
            .ok();
    }
    static bool answer_well(fabric::Connection& connection, const fabric::Incoming& incoming)
    {
        const auto request = load<RequestHead>(incoming.head);
        const bool read = incoming.kind == static_cast<std::uint16_t>(RequestKind::kRead);
        const std::vector<std::byte> data(read ? request.length : 0, std::byte{0x5a});
        return reply(connection, incoming.kind, 0, incoming.request_id, {}, data);
    }

  private:
    void serve()
    {
        for (int round = 0; !stopping_; ++round) {
            auto connection = listener_->accept();
            if (!connection) return;
            while (!stopping_) {
                const auto incoming = (*connection)->receive(20);
                if (!incoming && incoming.error().code() == ErrorCode::kTimeout) continue;
                if (!incoming || !take(**connection, *incoming, round)) break;
            }
        }
    }
    bool take(fabric::Connection& connection, const fabric::Incoming& incoming, int round)
    {
        if (!connection.skip_data()) return false;
        if (incoming.kind != static_cast<std::uint16_t>(RequestKind::kOpen)) {
            return answer_(connection, incoming, round);
        }
        IdentityHead identity;
        identity.size_bytes = 1 * kMiB;
        return reply(connection, incoming.kind, 0, incoming.request_id, bytes_of(identity), {});
    }

    Answer answer_;
    std::atomic<bool> stopping_{false};
    std::unique_ptr<fabric::Listener> listener_;
    std::thread thread_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(hostile_monitor)

BOOST_AUTO_TEST_CASE(a_monitor_that_falls_silent_is_left)
{
    FakeMonitor monitor{[](fabric::Connection& connection, const fabric::Incoming& incoming, int round) {
        return round == 0 ? true : FakeMonitor::answer_well(connection, incoming);
    }};
    const auto volume = open_remote(monitor.options());
    std::vector<std::byte> bytes(4096);
    require_ok(SyncDisk{*volume}.read(0, bytes));
    BOOST_CHECK(bytes == std::vector<std::byte>(4096, std::byte{0x5a}));
    BOOST_TEST(volume->connection_count() == 2u);
}

BOOST_AUTO_TEST_CASE(a_monitor_that_is_slow_but_answers_pings_is_not_left)
{
    std::atomic<int> pings{0};
    std::uint64_t waiting = 0;
    FakeMonitor monitor{[&](fabric::Connection& connection, const fabric::Incoming& incoming, int) {
        if (incoming.kind == static_cast<std::uint16_t>(RequestKind::kPing)) {
            FakeMonitor::answer_well(connection, incoming);
            if (++pings < 20) return true;
            return FakeMonitor::reply(connection, static_cast<std::uint16_t>(RequestKind::kFlush), 0, waiting, {}, {});
        }
        waiting = incoming.request_id;
        return true;
    }};
    const auto volume = open_remote(monitor.options());
    require_ok(SyncDisk{*volume}.flush());
    BOOST_TEST(pings >= 20);
    BOOST_TEST(volume->connection_count() == 1u);
}

BOOST_AUTO_TEST_CASE(answers_that_make_no_sense_end_the_connection_only)
{
    const auto read = static_cast<std::uint16_t>(RequestKind::kRead);
    FakeMonitor monitor{[&](fabric::Connection& connection, const fabric::Incoming& incoming, int round) {
        const auto id = incoming.request_id;
        const std::vector<std::byte> data(64 * kKiB);
        switch (round) {
        case 0: return FakeMonitor::reply(connection, read, 0, id + 256, {}, data);
        case 1: return FakeMonitor::reply(connection, read, 0, id, {}, std::span{data}.first(4095));
        case 2: return FakeMonitor::reply(connection, 5, 0, id, {}, {});
        case 3: return FakeMonitor::reply(connection, read, 1, id, {}, data);  // an endless error text
        case 4: return FakeMonitor::reply(connection, read, 0, id, {}, data);
        case 5: return FakeMonitor::reply(connection, 77, 9, 0, {}, {});
        case 6: return false;
        default: return FakeMonitor::answer_well(connection, incoming);
        }
    }};
    const auto volume = open_remote(monitor.options());
    std::vector<std::byte> bytes(4096);
    require_ok(SyncDisk{*volume}.read(0, bytes));
    BOOST_CHECK(bytes == std::vector<std::byte>(4096, std::byte{0x5a}));
    BOOST_TEST(volume->connection_count() == 8u);
}

BOOST_AUTO_TEST_CASE(an_early_answer_to_a_write_does_not_free_its_buffers)
{
    FakeMonitor monitor{[&](fabric::Connection& connection, const fabric::Incoming& incoming, int round) {
        // Guesses the id of the next request before it is sent.
        if (round < 3) FakeMonitor::reply(connection, incoming.kind, 0, incoming.request_id + 256, {}, {});
        return FakeMonitor::answer_well(connection, incoming);
    }};
    const auto volume = open_remote(monitor.options());
    SyncDisk disk{*volume};
    for (int i = 0; i < 20; ++i) require_ok(disk.write(0, pattern(4096, 1)));
}

BOOST_AUTO_TEST_CASE(an_io_error_reaches_the_guest_and_ends_nothing)
{
    FakeMonitor monitor{[&](fabric::Connection& connection, const fabric::Incoming& incoming, int) {
        if (incoming.kind != static_cast<std::uint16_t>(RequestKind::kFlush)) {
            return FakeMonitor::answer_well(connection, incoming);
        }
        return FakeMonitor::reply(connection, incoming.kind, status_of(ErrorCode::kIo), incoming.request_id, {},
                                  pattern(10, 1));
    }};
    const auto volume = open_remote(monitor.options());
    SyncDisk disk{*volume};
    check_code(disk.flush(), ErrorCode::kIo);
    require_ok(disk.write(0, pattern(512, 1)));
    BOOST_TEST(volume->connection_count() == 1u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
