#include "vstore/server.h"

#include <atomic>
#include <random>
#include <thread>

#include "fixtures.h"
#include "raw_client.h"

namespace splitvisor::vstore {

namespace {

struct OneVolume {
    OneVolume() { require_ok(monitor.store().create(record)); }
    [[nodiscard]] RawClient client(SessionKey session = {1, 1}) const { return {monitor.endpoint(), record, session}; }

    TemporaryDirectory directory;
    Monitor monitor{directory.path()};
    VolumeRecord record = record_of(1, 1 * kMiB, 3);
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(server, OneVolume)

BOOST_AUTO_TEST_CASE(nobody_gets_in_without_capability_and_epoch)
{
    for (const auto kind : {RequestKind::kOpen, RequestKind::kIdentify}) {
        auto thief = client();
        thief.head().capability[15] ^= std::byte{0x80};
        check_code(thief.ask(kind), ErrorCode::kDenied);
        check_code(thief.ask(RequestKind::kRead, 0, 512), ErrorCode::kUnavailable);

        auto old = client();
        old.head().epoch = 2;
        check_code(old.ask(kind), ErrorCode::kStale);
        auto early = client();
        early.head().epoch = 4;
        check_code(early.ask(kind), ErrorCode::kDenied);
        auto lost = client();
        lost.head().volume = 2;
        check_code(lost.ask(kind), ErrorCode::kNotFound);
    }
    auto hasty = client();
    check_code(hasty.ask(RequestKind::kRead, 0, 512), ErrorCode::kInvalid);
    auto identified = client();
    require_ok(identified.ask(RequestKind::kIdentify));
    require_ok(identified.ask(RequestKind::kIdentify));
    check_code(identified.ask(RequestKind::kWrite, 0, 512, pattern(512, 1)), ErrorCode::kInvalid);
}

BOOST_AUTO_TEST_CASE(each_request_is_checked_and_a_refused_one_ends_nothing)
{
    auto user = client();
    require_ok(user.ask(RequestKind::kOpen));
    const auto data = pattern(4096, 1);
    check_code(user.ask(RequestKind::kOpen), ErrorCode::kInvalid);
    check_code(user.ask(RequestKind::kRead, 1 * kMiB, 512), ErrorCode::kInvalid);
    check_code(user.ask(RequestKind::kWrite, 1 * kMiB - 512, 4096, data), ErrorCode::kInvalid);
    check_code(user.ask(RequestKind::kWrite, ~std::uint64_t{511}, 4096, data), ErrorCode::kInvalid);
    check_code(user.ask(RequestKind::kWrite, 0, 8192, data), ErrorCode::kInvalid);
    check_code(user.ask(RequestKind::kWrite, 100, 4096, data), ErrorCode::kInvalid);
    check_code(user.ask(RequestKind::kDiscard, 512, ~std::uint64_t{511}), ErrorCode::kInvalid);
    user.head().capability[0] ^= std::byte{1};
    check_code(user.ask(RequestKind::kWrite, 0, 4096, data), ErrorCode::kDenied);
    user.head().capability[0] ^= std::byte{1};
    user.head().session.counter = 2;
    check_code(user.ask(RequestKind::kWrite, 0, 4096, data), ErrorCode::kInvalid);
    user.head().session.counter = 1;
    user.head().volume = 7;
    check_code(user.ask(RequestKind::kRead, 0, 4096), ErrorCode::kDenied);
    user.head().volume = 1;
    require_ok(user.ask(RequestKind::kPing));
    require_ok(user.ask(RequestKind::kWrite, 0, 4096, data));
    require_ok(user.send(RequestKind::kRead, 9, 0, 4096));
    const auto reply = user.receive();
    BOOST_REQUIRE(reply.ok());
    BOOST_TEST(reply->request_id == 9u);
    BOOST_CHECK(reply->data == data);
    BOOST_TEST(monitor.server().statistics().refused_requests == 10u);
}

BOOST_AUTO_TEST_CASE(a_read_only_session_changes_nothing_and_fences_no_one)
{
    auto writer = client({1, 1});
    require_ok(writer.ask(RequestKind::kOpen));
    auto reader = client({2, 1});
    reader.head().flags = kFlagReadOnly;
    require_ok(reader.ask(RequestKind::kOpen));
    reader.head().flags = 0;
    for (const auto kind : {RequestKind::kDiscard, RequestKind::kWriteZeroes}) {
        check_code(reader.ask(kind, 0, 4096), ErrorCode::kDenied);
    }
    check_code(reader.ask(RequestKind::kWrite, 0, 512, pattern(512, 1)), ErrorCode::kDenied);
    require_ok(reader.ask(RequestKind::kRead, 0, 512));
    require_ok(reader.ask(RequestKind::kFlush));
    require_ok(writer.ask(RequestKind::kWrite, 0, 512, pattern(512, 1)));
}

BOOST_AUTO_TEST_CASE(a_raised_epoch_ends_the_old_owner_at_once)
{
    auto old = client();
    require_ok(old.ask(RequestKind::kOpen));
    require_ok(monitor.store().set_epoch(VolumeId{1}, Epoch{4}));
    BOOST_TEST(!old.ask(RequestKind::kWrite, 0, 512, pattern(512, 1)).ok());
    auto again = client({1, 2});
    check_code(again.ask(RequestKind::kOpen), ErrorCode::kStale);
    auto owner = client({9, 1});
    owner.head().epoch = 4;
    require_ok(owner.ask(RequestKind::kOpen));
    require_ok(owner.ask(RequestKind::kRead, 0, 512));
}

BOOST_AUTO_TEST_CASE(a_deleted_volume_is_gone_for_its_sessions)
{
    auto user = client();
    require_ok(user.ask(RequestKind::kOpen));
    require_ok(monitor.store().remove(VolumeId{1}));
    BOOST_TEST(!user.ask(RequestKind::kRead, 0, 512).ok());
    check_code(client({1, 2}).ask(RequestKind::kOpen), ErrorCode::kNotFound);
}

BOOST_AUTO_TEST_CASE(nothing_of_a_fenced_session_takes_effect_after_its_successor_was_answered)
{
    const auto old_data = pattern(64 * kKiB + 512, 1);
    const auto new_data = pattern(512, 2);
    std::size_t fenced_midway = 0;
    for (std::uint64_t round = 1; round <= 40; ++round) {
        auto old = client({5, 2 * round});
        require_ok(old.ask(RequestKind::kOpen));
        std::atomic<std::uint64_t> sent{0};
        // Writes all over the volume, through the ring: the length is no multiple of a page.
        std::thread flood{[&] {
            for (std::uint64_t i = 0; i < 2000; ++i) {
                if (!old.send(RequestKind::kWrite, i, i % 15 * 64 * kKiB, old_data.size(), old_data)) return;
                ++sent;
            }
        }};
        std::thread drain{[&] {
            while (old.receive().ok()) continue;
        }};
        while (sent < 20) std::this_thread::yield();

        auto young = client({5, 2 * round + 1});
        require_ok(young.ask(RequestKind::kOpen));
        if (sent < 2000) ++fenced_midway;
        for (std::uint64_t i = 0; i < 15; ++i) {
            require_ok(young.ask(RequestKind::kWrite, i * 64 * kKiB, 512, new_data));
        }
        ::usleep(5000);
        for (std::uint64_t i = 0; i < 15; ++i) {
            require_ok(young.send(RequestKind::kRead, i, i * 64 * kKiB, 512));
            const auto reply = young.receive();
            BOOST_REQUIRE(reply.ok());
            BOOST_REQUIRE(reply->data == new_data);
        }
        flood.join();
        old.connection().shutdown();
        drain.join();
        check_code(client({5, 2 * round}).ask(RequestKind::kOpen), ErrorCode::kStale);
    }
    BOOST_TEST(fenced_midway > 20u);
}

BOOST_AUTO_TEST_CASE(a_client_that_takes_no_replies_can_be_fenced)
{
    auto deaf = client({1, 1});
    require_ok(deaf.ask(RequestKind::kOpen));
    std::thread flood{[&] {
        for (std::uint64_t i = 0; i < 500; ++i) {
            if (!deaf.send(RequestKind::kRead, i, 0, 1 * kMiB)) return;
        }
    }};
    ::usleep(200'000);
    auto next = client({1, 2});
    require_ok(next.ask(RequestKind::kOpen));
    flood.join();
    require_ok(next.ask(RequestKind::kRead, 0, 512));
}

BOOST_AUTO_TEST_CASE(random_requests_harm_nothing)
{
    std::mt19937_64 random{99};
    const auto kept = pattern(4096, 3);
    {
        auto user = client({1, 1});
        require_ok(user.ask(RequestKind::kOpen));
        require_ok(user.ask(RequestKind::kWrite, 0, 4096, kept));
    }
    for (int round = 0; round < 300; ++round) {
        auto hostile = client({2, static_cast<std::uint64_t>(round + 1)});
        const bool opens = round % 3 != 0;
        // A session that may not write, so that the content can be checked afterwards.
        hostile.head().flags = kFlagReadOnly;
        if (opens) require_ok(hostile.ask(RequestKind::kOpen));
        hostile.head().flags = 0;
        std::size_t expected = 0;
        for (int i = 0; i < 30; ++i) {
            std::vector<std::byte> head(random() % 4 == 0 ? random() % 200 : sizeof(RequestHead));
            for (auto& byte : head) byte = static_cast<std::byte>(random());
            if (head.size() >= sizeof(RequestHead) && random() % 4 != 0) {
                auto plausible = hostile.head();
                plausible.offset = random() >> (random() % 64);
                plausible.length = random() >> (random() % 64);
                if (random() % 2 == 0) plausible.offset &= ~std::uint64_t{511};
                if (random() % 2 == 0) plausible.length &= ~std::uint64_t{511};
                if (random() % 8 == 0) plausible.capability[random() % 16] ^= std::byte{4};
                store(std::span{head}, 0, plausible);
            }
            const auto kind = static_cast<std::uint16_t>(random() % 12 == 0 ? random() : random() % 9);
            const auto data = pattern(random() % 3 == 0 ? random() % 8192 : 0, 1);
            if (!hostile.send_bytes(kind, static_cast<std::uint64_t>(i), head, data)) break;
            ++expected;
        }
        for (std::size_t i = 0; opens && i < expected; ++i) {
            if (!hostile.receive(10'000).ok()) BOOST_FAIL("a request was not answered");
        }
    }
    auto user = client({1, 2});
    user.head().flags = kFlagReadOnly;
    require_ok(user.ask(RequestKind::kOpen));
    user.head().flags = 0;
    require_ok(user.send(RequestKind::kRead, 1, 0, 4096));
    const auto reply = user.receive();
    BOOST_REQUIRE(reply.ok());
    BOOST_CHECK(reply->data == kept);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
