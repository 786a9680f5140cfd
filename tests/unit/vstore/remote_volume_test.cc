#include <atomic>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "base/clock.h"
#include "fixtures.h"
#include "hammer.h"

namespace splitvisor::vstore {

namespace {

struct OneVolume {
    OneVolume() { require_ok(monitor.store().create(record)); }

    TemporaryDirectory directory;
    Monitor monitor{directory.path()};
    VolumeRecord record = record_of(1, 8 * kMiB, 3);
};

/// What on_state was told.
struct States {
    void add(VolumeState state)
    {
        const std::lock_guard lock{mutex};
        all.push_back(state);
    }
    [[nodiscard]] std::vector<VolumeState> get()
    {
        const std::lock_guard lock{mutex};
        return all;
    }
    std::mutex mutex;
    std::vector<VolumeState> all;
};

/// A guest's processor at its memory, while the VMM is at it. ThreadSanitizer knows nothing of guests
/// elsewhere either.
[[gnu::noinline, gnu::no_sanitize("thread")]] void guest_store(std::byte& at, std::byte value)
{
    *static_cast<volatile std::byte*>(&at) = value;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(remote_volume, OneVolume)

BOOST_AUTO_TEST_CASE(what_is_written_is_read_back)
{
    for (const bool fallocate : {true, false}) {
        monitor.stop();
        monitor.serving().write_through = !fallocate;
        monitor.start();
        const auto volume = open_remote(monitor.options_for(record));
        BOOST_TEST(volume->capacity().value() == 8 * kMiB);
        SyncDisk disk{*volume};
        require_ok(disk.run(BlockKind::kWriteZeroes, 0, 8 * kMiB));
        Hammer hammer{*volume, 1};
        hammer.run(1500, 64);
        hammer.check_everything();
        BOOST_TEST(hammer.errors() == 0);
        BOOST_TEST(hammer.checked_reads() > 100);
    }
}

BOOST_AUTO_TEST_CASE(discards_and_zeroes_read_as_zeros)
{
    const auto volume = open_remote(monitor.options_for(record));
    SyncDisk disk{*volume};
    for (const auto kind : {BlockKind::kDiscard, BlockKind::kWriteZeroes}) {
        require_ok(disk.write(0, pattern(3 * kMiB, 1)));
        require_ok(disk.run(kind, 512, 3 * kMiB - 1024));
        std::vector<std::byte> back(3 * kMiB);
        require_ok(disk.read(0, back));
        auto expected = pattern(3 * kMiB, 1);
        std::fill(expected.begin() + 512, expected.end() - 512, std::byte{0});
        BOOST_CHECK(back == expected);
    }
    require_ok(disk.run(BlockKind::kWriteZeroes, 0, 8 * kMiB));
}

BOOST_AUTO_TEST_CASE(bad_requests_are_refused_where_they_are_made)
{
    const auto volume = open_remote(monitor.options_for(record));
    SyncDisk disk{*volume};
    auto bytes = pattern(4096, 1);
    check_code(disk.read(8 * kMiB, bytes), ErrorCode::kInvalid);
    check_code(disk.read(8 * kMiB - 512, bytes), ErrorCode::kInvalid);
    check_code(disk.write(~std::uint64_t{511}, bytes), ErrorCode::kInvalid);
    check_code(disk.write(100, bytes), ErrorCode::kInvalid);
    check_code(disk.read(0, {}), ErrorCode::kInvalid);
    const iovec vector{bytes.data(), bytes.size()};
    check_code(disk.run(BlockKind::kWrite, 0, 512, {&vector, 1}), ErrorCode::kInvalid);
    check_code(disk.run(BlockKind::kRead, 0, 8192, {&vector, 1}), ErrorCode::kInvalid);
    check_code(disk.run(BlockKind::kDiscard, 0, 512, {&vector, 1}), ErrorCode::kInvalid);
    check_code(disk.run(BlockKind::kDiscard, 0, 0), ErrorCode::kInvalid);
    require_ok(disk.write(0, bytes));

    auto options = monitor.options_for(record);
    options.read_only = true;
    const auto reader = open_remote(options);
    SyncDisk read_disk{*reader};
    check_code(read_disk.write(0, bytes), ErrorCode::kDenied);
    check_code(read_disk.run(BlockKind::kDiscard, 0, 512), ErrorCode::kDenied);
    std::vector<std::byte> back(4096);
    require_ok(read_disk.read(0, back));
    BOOST_CHECK(back == bytes);
}

BOOST_AUTO_TEST_CASE(opening_says_why_it_fails)
{
    auto options = monitor.options_for(record);
    options.capability[3] ^= std::byte{1};
    check_code(RemoteVolume::open(options), ErrorCode::kDenied);
    options = monitor.options_for(record);
    options.epoch = Epoch{2};
    check_code(RemoteVolume::open(options), ErrorCode::kStale);
    options = monitor.options_for(record);
    options.volume = VolumeId{2};
    check_code(RemoteVolume::open(options), ErrorCode::kNotFound);
    options = monitor.options_for(record);
    options.size = ByteCount{4 * kMiB};
    check_code(RemoteVolume::open(options), ErrorCode::kInvalid);
    options = monitor.options_for(record);
    options.open_patience_ms = 200;
    monitor.stop();
    const auto start_ms = now_ms();
    check_code(RemoteVolume::open(options), ErrorCode::kUnavailable);
    BOOST_TEST(now_ms() - start_ms < 5000u);
}

BOOST_AUTO_TEST_CASE(a_restart_of_the_monitor_is_no_error)
{
    States states;
    auto options = monitor.options_for(record);
    options.on_state = [&](VolumeState state, const std::string&) { states.add(state); };
    const auto volume = open_remote(options);
    std::atomic<bool> done{false};
    // Some for each round, not one after the other for as long as it lasts: a busy machine's monitor answers
    // next to nothing in the tens of milliseconds that it lives, and the round would never end.
    constexpr int kRestartsInRound = 8;
    std::atomic<int> restarts_left{0};
    std::thread disturb{[&] {
        std::mt19937_64 random{5};
        while (!done) {
            ::usleep(static_cast<useconds_t>(random() % 60'000));
            if (restarts_left == 0) continue;
            --restarts_left;
            monitor.stop();
            ::usleep(static_cast<useconds_t>(random() % 40'000));
            monitor.start();
        }
    }};
    Hammer hammer{*volume, 2};
    for (int round = 0; round < 10; ++round) {
        restarts_left = kRestartsInRound;
        hammer.run(500, 128);
        hammer.check_everything();
    }
    done = true;
    disturb.join();
    BOOST_TEST(hammer.errors() == 0);
    BOOST_TEST(volume->connection_count() > 5u);
    const auto seen = states.get();
    BOOST_TEST((seen[0] == VolumeState::kConnected));
    BOOST_TEST((seen[1] == VolumeState::kReconnecting));
    BOOST_TEST((seen[2] == VolumeState::kConnected));
}

BOOST_AUTO_TEST_CASE(requests_made_while_the_monitor_is_away_wait_for_it)
{
    const auto volume = open_remote(monitor.options_for(record));
    monitor.stop();
    ::usleep(50'000);
    std::atomic<int> done{0};
    std::vector<std::vector<std::byte>> buffers;
    std::vector<iovec> vectors(kMaxInFlight);
    for (std::size_t i = 0; i < kMaxInFlight; ++i) {
        buffers.push_back(pattern(4096, i));
        vectors[i] = {buffers[i].data(), 4096};
        volume->submit({BlockKind::kWrite, i * 4096, 4096, {&vectors[i], 1}, [&](const Status& status) {
                            if (status) ++done;
                        }});
    }
    Status refused;
    volume->submit({BlockKind::kFlush, 0, 0, {}, [&](Status status) { refused = std::move(status); }});
    check_code(refused, ErrorCode::kNoRoom);
    ::usleep(300'000);
    BOOST_TEST(done == 0);
    monitor.start();
    for (int i = 0; i < 1000 && done < static_cast<int>(kMaxInFlight); ++i) ::usleep(10'000);
    BOOST_TEST(done == static_cast<int>(kMaxInFlight));
    std::vector<std::byte> back(4096);
    require_ok(SyncDisk{*volume}.read(77 * 4096, back));
    BOOST_CHECK(back == buffers[77]);
}

BOOST_AUTO_TEST_CASE(a_fenced_volume_fails_for_good)
{
    States states;
    auto options = monitor.options_for(record);
    options.on_state = [&](VolumeState state, const std::string&) {
        // Time for a request to fail before the reason is known.
        if (state == VolumeState::kFailed) ::usleep(50'000);
        states.add(state);
    };
    const auto volume = open_remote(options);
    SyncDisk disk{*volume};
    require_ok(disk.write(0, pattern(4096, 1)));
    require_ok(monitor.store().set_epoch(VolumeId{1}, Epoch{4}));
    check_code(disk.write(0, pattern(4096, 2)), ErrorCode::kStale);
    check_code(disk.flush(), ErrorCode::kStale);
    BOOST_TEST((states.get().back() == VolumeState::kFailed));
    auto next_owner = monitor.options_for(record);
    next_owner.epoch = Epoch{4};
    const auto owner = open_remote(next_owner);
    std::vector<std::byte> back(4096);
    require_ok(SyncDisk{*owner}.read(0, back));
    BOOST_CHECK(back == pattern(4096, 1));
}

BOOST_AUTO_TEST_CASE(of_two_clients_with_one_epoch_the_later_wins)
{
    const auto first = open_remote(monitor.options_for(record));
    const auto second = open_remote(monitor.options_for(record));
    check_code(SyncDisk{*first}.write(0, pattern(4096, 1)), ErrorCode::kStale);
    require_ok(SyncDisk{*second}.write(0, pattern(4096, 2)));
}

BOOST_AUTO_TEST_CASE(lost_power_is_not_hidden_when_writes_were_not_flushed)
{
    const auto restart_with_boot = [&](int boot) {
        monitor.stop();
        monitor.serving().boot_id = capability_of(boot);
        monitor.start();
    };
    restart_with_boot(1);
    const auto volume = open_remote(monitor.options_for(record));
    SyncDisk disk{*volume};
    require_ok(disk.write(0, pattern(4096, 1)));
    restart_with_boot(1);
    require_ok(disk.write(4096, pattern(4096, 1)));  // the monitor alone was started anew: nothing is lost
    require_ok(disk.flush());
    restart_with_boot(2);
    require_ok(disk.write(0, pattern(4096, 2)));  // all was flushed: nothing is lost
    restart_with_boot(3);
    std::vector<std::byte> back(4096);
    check_code(disk.read(0, back), ErrorCode::kIo);
    check_code(disk.flush(), ErrorCode::kIo);

    monitor.stop();
    monitor.serving().write_through = true;
    monitor.start();
    const auto careful = open_remote(monitor.options_for(record));
    require_ok(SyncDisk{*careful}.write(0, pattern(4096, 3)));
    restart_with_boot(4);
    require_ok(SyncDisk{*careful}.read(0, back));
    BOOST_CHECK(back == pattern(4096, 3));
}

BOOST_AUTO_TEST_CASE(many_threads_may_submit_and_completions_may_submit_more)
{
    const auto volume = open_remote(monitor.options_for(record));
    constexpr int kChains = 32;
    constexpr int kLinks = 50;
    struct Chain {
        BlockBackend* disk = nullptr;
        std::uint64_t offset = 0;
        std::vector<std::byte> bytes = pattern(16 * kKiB, 1);
        iovec vector{};
        int left = kLinks;
        std::atomic<int>* finished = nullptr;
        std::atomic<int>* errors = nullptr;
        void step()
        {
            vector = {bytes.data(), bytes.size()};
            disk->submit({left % 2 == 0 ? BlockKind::kWrite : BlockKind::kRead, offset, bytes.size(), {&vector, 1},
                          [this](const Status& status) {
                              if (!status) ++*errors;
                              if (--left > 0) return step();
                              ++*finished;
                          }});
        }
    };
    std::vector<Chain> chains(kChains);
    std::atomic<int> finished{0};
    std::atomic<int> errors{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kChains; ++i) {
        auto& chain = chains[static_cast<std::size_t>(i)];
        chain.disk = volume.get();
        chain.offset = static_cast<std::uint64_t>(i) * 16 * kKiB;
        chain.finished = &finished;
        chain.errors = &errors;
        threads.emplace_back([&chain] { chain.step(); });
    }
    for (auto& thread : threads) thread.join();
    for (int i = 0; i < 2000 && finished < kChains; ++i) ::usleep(10'000);
    BOOST_TEST(finished == kChains);
    BOOST_TEST(errors == 0);
}

BOOST_AUTO_TEST_CASE(a_guest_that_changes_its_buffers_breaks_nothing)
{
    const auto volume = open_remote(monitor.options_for(record));
    std::vector<std::byte> buffer(256 * kKiB);
    std::atomic<bool> done{false};
    std::thread scribble{[&] {
        for (std::size_t i = 0; !done; i = (i + 64) % buffer.size()) {
            guest_store(buffer[i], static_cast<std::byte>(i * 7 + 1));
        }
    }};
    SyncDisk disk{*volume};
    for (int i = 0; i < 100; ++i) {
        require_ok(disk.write(0, buffer));
        require_ok(disk.read(0, buffer));
    }
    done = true;
    scribble.join();
    BOOST_TEST(volume->connection_count() == 1u);
}

BOOST_AUTO_TEST_CASE(closing_ends_what_is_in_flight)
{
    for (const bool away : {false, true}) {
        auto volume = open_remote(monitor.options_for(record));
        if (away) monitor.stop();
        std::atomic<int> ended{0};
        auto bytes = pattern(1 * kMiB, 1);
        const iovec vector{bytes.data(), bytes.size()};
        for (int i = 0; i < 50; ++i) {
            volume->submit({BlockKind::kWrite, 0, bytes.size(), {&vector, 1}, [&](const Status&) { ++ended; }});
        }
        const auto start_ms = now_ms();
        volume.reset();
        BOOST_TEST(ended == 50);
        BOOST_TEST(now_ms() - start_ms < 5000u);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
