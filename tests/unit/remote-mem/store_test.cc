#include "remote-mem/store.h"

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <thread>

#include "base/log.h"
#include "tests/unit/remote-mem/pages.h"

namespace splitvisor::remote_mem {

namespace {

constexpr RegionId kRegion{7};
constexpr Capability kSecret{std::byte{1}, std::byte{2}, std::byte{3}};
constexpr Access kAccess{kRegion, kSecret, Epoch{5}};
constexpr std::uint32_t kPages = 8'192;
constexpr ByteCount kSize{std::uint64_t{kPages} * kPageBytes};

/// A store with one region, and one-page calls.
struct Bench {
    RegionStore store{ByteCount{2 * kSize.value()}};

    Bench() { SPLITVISOR_CHECK(store.create_region(kRegion, kSize, kSecret, Epoch{5}).ok()); }

    Result<std::uint32_t> write(std::uint32_t index, std::uint64_t version, const Page& page,
                                const Access& access = kAccess)
    {
        const WriteEntry entry{version, index, 0};
        return store.write(access, {&entry, 1}, page);
    }
    Result<std::uint32_t> write(std::uint32_t index, std::uint64_t version, const Access& access = kAccess)
    {
        return write(index, version, page_of(index, version), access);
    }
    Result<std::uint32_t> drop(std::uint32_t index, std::uint64_t version)
    {
        const DropEntry entry{version, index, 0};
        return store.drop(kAccess, {&entry, 1});
    }
    struct Found {
        ErrorCode code = ErrorCode::kIo;
        ReadEntry entry{};
        Page page;
    };
    Found read(std::uint32_t index, const Access& access = kAccess)
    {
        Found found;
        found.page.resize(kPageBytes);
        const auto copied = store.read(access, {&index, 1}, {&found.entry, 1}, found.page);
        if (!copied) found.code = copied.error().code();
        return found;
    }
    bool holds(std::uint32_t index, std::uint64_t version)
    {
        const auto found = read(index);
        return found.entry.state == PageState::kStored && found.entry.version == version &&
               found.page == page_of(index, version);
    }
};

std::uint64_t resident_pages()
{
    std::ifstream statm{"/proc/self/statm"};
    std::uint64_t size = 0;
    std::uint64_t resident = 0;
    statm >> size >> resident;
    return resident;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(store)

BOOST_AUTO_TEST_CASE(reserves_room_for_whole_regions)
{
    RegionStore store{ByteCount{10 * kPageBytes}};
    BOOST_TEST(store.create_region(RegionId{1}, ByteCount{6 * kPageBytes}, kSecret, Epoch{1}).ok());
    const auto refused = store.create_region(RegionId{2}, ByteCount{5 * kPageBytes}, kSecret, Epoch{1});
    BOOST_REQUIRE(!refused.ok());
    BOOST_TEST((refused.error().code() == ErrorCode::kNoRoom));
    BOOST_TEST(refused.error().message().find("16 KiB free") != std::string::npos, refused.error().message());
    BOOST_TEST(store.create_region(RegionId{2}, ByteCount{4 * kPageBytes}, kSecret, Epoch{1}).ok());
    BOOST_TEST(store.stats().reserved.value() == 10 * kPageBytes);
    BOOST_TEST(store.delete_region(RegionId{1}).ok());
    BOOST_TEST(store.delete_region(RegionId{1}).ok(), "deleting twice is no error");
    BOOST_TEST(store.stats().reserved.value() == 4 * kPageBytes);
    BOOST_TEST(store.create_region(RegionId{3}, ByteCount{6 * kPageBytes}, kSecret, Epoch{1}).ok());
}

BOOST_AUTO_TEST_CASE(refuses_odd_sizes)
{
    RegionStore store{ByteCount{~std::uint64_t{0}}};
    for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4'097}, std::uint64_t{1} << 44}) {
        const auto made = store.create_region(RegionId{1}, ByteCount{size}, kSecret, Epoch{1});
        BOOST_REQUIRE(!made.ok());
        BOOST_TEST((made.error().code() == ErrorCode::kInvalid));
    }
    BOOST_TEST(store.stats().reserved.value() == 0u);
}

BOOST_AUTO_TEST_CASE(making_a_region_twice_needs_the_same_arguments)
{
    Bench bench;
    BOOST_TEST(bench.write(3, 1).ok());
    BOOST_TEST(bench.store.create_region(kRegion, kSize, kSecret, Epoch{5}).ok());
    BOOST_TEST(bench.holds(3, 1), "a repetition loses nothing");
    const auto code = [&](ByteCount size, const Capability& capability, Epoch epoch) {
        return bench.store.create_region(kRegion, size, capability, epoch).error().code();
    };
    BOOST_TEST((code(ByteCount{kPageBytes}, kSecret, Epoch{5}) == ErrorCode::kExists));
    BOOST_TEST((code(kSize, Capability{}, Epoch{5}) == ErrorCode::kExists));
    BOOST_TEST((code(kSize, kSecret, Epoch{6}) == ErrorCode::kExists));
}

BOOST_AUTO_TEST_CASE(orders_writes_by_version)
{
    Bench bench;
    BOOST_TEST((bench.read(9).entry.state == PageState::kAbsent));
    BOOST_TEST(bench.write(9, 10).value() == 0u);
    BOOST_TEST(bench.write(9, 9).value() == 1u, "older: stale, not an error");
    BOOST_TEST(bench.holds(9, 10));
    BOOST_TEST(bench.write(9, 10).value() == 0u, "a repetition");
    BOOST_TEST(bench.holds(9, 10));
    BOOST_TEST(bench.write(9, 11).value() == 0u);
    BOOST_TEST(bench.holds(9, 11));
    BOOST_TEST((bench.read(8).entry.state == PageState::kAbsent));
    BOOST_TEST((bench.read(10).entry.state == PageState::kAbsent));
    BOOST_TEST(bench.store.stats().stale_pages == 1u);
    BOOST_TEST(bench.store.stats().stored_pages == 1u);
}

BOOST_AUTO_TEST_CASE(a_dropped_page_stays_dropped)
{
    Bench bench;
    BOOST_TEST(bench.write(4, 10).ok());
    BOOST_TEST(bench.drop(4, 9).value() == 1u, "an older drop comes late");
    BOOST_TEST(bench.holds(4, 10));
    BOOST_TEST(bench.drop(4, 20).value() == 0u);
    BOOST_TEST((bench.read(4).entry.state == PageState::kAbsent));
    BOOST_TEST(bench.read(4).entry.version == 20u);
    BOOST_TEST(bench.write(4, 15).value() == 1u, "an older write comes late");
    BOOST_TEST((bench.read(4).entry.state == PageState::kAbsent));
    BOOST_TEST(bench.write(4, 21).value() == 0u);
    BOOST_TEST(bench.holds(4, 21));
    BOOST_TEST(bench.drop(5, 3).value() == 0u, "a drop of what was never there");
    BOOST_TEST(bench.write(5, 2).value() == 1u);
    BOOST_TEST(bench.store.stats().stored_pages == 1u);
}

// Drops release whole runs of neighbours at once: what lies between and beside must stay.
BOOST_AUTO_TEST_CASE(a_drop_of_many_takes_no_neighbour)
{
    Bench bench;
    for (std::uint32_t i = 0; i < 200; ++i) BOOST_REQUIRE(bench.write(i, 2).ok());
    std::vector<DropEntry> entries;
    for (std::uint32_t i = 10; i < 190; ++i) {
        if (i % 7 != 0) entries.push_back({5, i, 0});
    }
    entries.push_back({5, 20, 0});
    entries.push_back({5, 5'000, 0});
    std::swap(entries[3], entries[60]);
    entries.push_back({5, 75, 0});
    entries.push_back({5, 75, 0});
    BOOST_REQUIRE(bench.write(76, 6).ok());
    BOOST_TEST(bench.store.drop(kAccess, entries).value() == 1u, "the newer page 76 stays");
    std::uint32_t wrong = 0;
    for (std::uint32_t i = 0; i < 200; ++i) {
        const bool dropped = i >= 10 && i < 190 && i % 7 != 0 && i != 76;
        const std::uint64_t version = i == 76 ? 6 : 2;
        const bool right = dropped ? bench.read(i).entry.state == PageState::kAbsent : bench.holds(i, version);
        wrong += right ? 0u : 1u;
    }
    BOOST_TEST(wrong == 0u);
    std::uint32_t kept = 1;
    for (std::uint32_t i = 0; i < 200; ++i) kept += i < 10 || i >= 190 || i % 7 == 0 ? 1u : 0u;
    BOOST_TEST(bench.store.stats().stored_pages == kept);
}

BOOST_AUTO_TEST_CASE(keeps_zero_pages_without_memory)
{
    Bench bench;
    const Page zeros(kPageBytes);
    BOOST_TEST(bench.write(1, 1, zeros).ok());
    BOOST_TEST((bench.read(1).entry.state == PageState::kZero));
    BOOST_TEST(bench.read(1).entry.version == 1u);
    BOOST_TEST(bench.store.stats().stored_pages == 0u);
    BOOST_TEST(bench.write(1, 2).ok());
    BOOST_TEST(bench.holds(1, 2));
    BOOST_TEST(bench.store.stats().stored_pages == 1u);
    BOOST_TEST(bench.write(1, 3, zeros).ok());
    BOOST_TEST(bench.store.stats().stored_pages == 0u);
    BOOST_TEST(bench.write(1, 2).value() == 1u);
    Page almost(kPageBytes);
    almost.back() = std::byte{1};
    BOOST_TEST(bench.write(1, 4, almost).ok());
    BOOST_TEST((bench.read(1).page == almost));
    BOOST_TEST(bench.store.stats().zero_pages_written == 2u);
}

BOOST_AUTO_TEST_CASE(refuses_who_may_not)
{
    Bench bench;
    BOOST_REQUIRE(bench.write(0, 1).ok());
    for (std::size_t i = 0; i < kSecret.size(); ++i) {
        auto wrong = kAccess;
        wrong.capability[i] ^= std::byte{0x40};
        BOOST_TEST((bench.write(0, 9, wrong).error().code() == ErrorCode::kDenied), "byte " << i);
        BOOST_TEST((bench.read(0, wrong).code == ErrorCode::kDenied));
    }
    auto other = kAccess;
    other.region = RegionId{8};
    BOOST_TEST((bench.write(0, 9, other).error().code() == ErrorCode::kNotFound));
    BOOST_TEST((bench.read(0, other).code == ErrorCode::kNotFound));
    auto older = kAccess;
    older.epoch = Epoch{4};
    BOOST_TEST((bench.write(0, 9, older).error().code() == ErrorCode::kStale));
    BOOST_TEST((bench.read(0, older).code == ErrorCode::kStale));
    auto newer = kAccess;
    newer.epoch = Epoch{6};
    BOOST_TEST((bench.write(0, 9, newer).error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(bench.holds(0, 1), "none of them changed anything");
    BOOST_TEST(bench.store.stats().refused == 2 * kSecret.size() + 5u);
}

BOOST_AUTO_TEST_CASE(an_index_outside_changes_nothing)
{
    Bench bench;
    const std::array<WriteEntry, 2> entries{{{1, 0, 0}, {1, kPages, 0}}};
    const Page pages(2 * kPageBytes, std::byte{1});
    BOOST_TEST((bench.store.write(kAccess, entries, pages).error().code() == ErrorCode::kInvalid));
    BOOST_TEST((bench.store.drop(kAccess, entries).error().code() == ErrorCode::kInvalid));
    BOOST_TEST((bench.read(0).entry.state == PageState::kAbsent));
    BOOST_TEST(bench.read(0).entry.version == 0u);
    BOOST_TEST((bench.read(kPages).code == ErrorCode::kInvalid));
    BOOST_TEST((bench.read(~0u).code == ErrorCode::kInvalid));
    BOOST_TEST(bench.write(kPages - 1, 1).ok());
    BOOST_TEST(bench.holds(kPages - 1, 1));
}

BOOST_AUTO_TEST_CASE(the_epoch_never_goes_back)
{
    Bench bench;
    BOOST_TEST(bench.store.set_epoch(kRegion, Epoch{5}).ok());
    BOOST_TEST(bench.store.set_epoch(kRegion, Epoch{9}).ok());
    BOOST_TEST((bench.store.set_epoch(kRegion, Epoch{8}).error().code() == ErrorCode::kStale));
    BOOST_TEST((bench.store.set_epoch(RegionId{99}, Epoch{8}).error().code() == ErrorCode::kNotFound));
    BOOST_TEST((bench.write(0, 1).error().code() == ErrorCode::kStale));
    auto current = kAccess;
    current.epoch = Epoch{9};
    BOOST_TEST(bench.write(0, 1, current).ok());
}

BOOST_AUTO_TEST_CASE(notices_memory_that_rotted)
{
    Bench bench;
    BOOST_REQUIRE(bench.write(1, 1).ok());
    BOOST_REQUIRE(bench.write(2, 1).ok());
    bench.store.region_for_test(kRegion)->frame(1)[4'000] ^= std::byte{4};
    BOOST_TEST((bench.read(1).entry.state == PageState::kCorrupt));
    BOOST_TEST(bench.holds(2, 1));
    BOOST_TEST(bench.store.stats().corrupt_pages == 1u);
    const std::array<std::uint32_t, 3> indices{1, 2, 3};
    std::array<ReadEntry, 3> entries{};
    Page pages(3 * kPageBytes);
    BOOST_TEST(bench.store.read(kAccess, indices, entries, pages).value() == 1u);
    BOOST_TEST((Page(pages.begin(), pages.begin() + kPageBytes) == page_of(2, 1)), "the sound page stands first");
    BOOST_TEST(bench.write(1, 2).ok());
    BOOST_TEST(bench.holds(1, 2), "a write heals it");
}

BOOST_AUTO_TEST_CASE(deleting_gives_the_memory_back)
{
    Bench bench;
    // Nothing is allocated beside the region: AddressSanitizer keeps what is freed.
    const auto page = page_of(1, 1);
    const auto before = resident_pages();
    for (std::uint32_t i = 0; i < kPages; ++i) BOOST_REQUIRE(bench.write(i, 1, page).ok());
    BOOST_TEST(resident_pages() > before + kPages * 9 / 10);
    BOOST_TEST(bench.store.stats().stored_pages == kPages);
    std::vector<DropEntry> entries;
    for (std::uint32_t i = 0; i < kPages / 2; ++i) entries.push_back({2, i, 0});
    BOOST_TEST(bench.store.drop(kAccess, entries).ok());
    BOOST_TEST(resident_pages() < before + kPages * 6 / 10, "dropped pages too");
    BOOST_TEST(bench.store.delete_region(kRegion).ok());
    BOOST_TEST(resident_pages() < before + kPages / 10);
    BOOST_TEST(bench.store.stats().stored_pages == 0u);
    BOOST_TEST((bench.write(0, 2).error().code() == ErrorCode::kNotFound));
    BOOST_TEST(bench.store.create_region(kRegion, kSize, kSecret, Epoch{5}).ok());
    BOOST_TEST((bench.read(0).entry.state == PageState::kAbsent), "nothing of the old region shows");
}

// Writers and droppers of the same few pages against readers: a page is always one write's as a whole, and versions never
// go back.
BOOST_AUTO_TEST_CASE(no_reader_sees_a_torn_page)
{
    Bench bench;
    constexpr std::uint32_t kHot = 3;
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> next_version{1};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&] {
            while (!stop) {
                const auto version = next_version.fetch_add(1);
                const auto index = static_cast<std::uint32_t>(version % kHot);
                SPLITVISOR_CHECK(version % 17 == 0 ? bench.drop(index, version).ok() : bench.write(index, version).ok());
            }
        });
    }
    std::uint64_t torn = 0;
    std::uint64_t backwards = 0;
    std::uint64_t stored = 0;
    std::array<std::uint64_t, kHot> newest{};
    for (int round = 0; round < 30'000; ++round) {
        const auto index = static_cast<std::uint32_t>(round) % kHot;
        const auto found = bench.read(index);
        if (found.entry.version < newest[index]) ++backwards;
        newest[index] = found.entry.version;
        if (found.entry.state == PageState::kAbsent) continue;
        ++stored;
        if (found.entry.state != PageState::kStored || found.page != page_of(index, found.entry.version)) ++torn;
    }
    stop = true;
    for (auto& thread : threads) thread.join();
    BOOST_TEST(torn == 0u);
    BOOST_TEST(backwards == 0u);
    BOOST_TEST(stored > 1'000u);
}

// After set_epoch has returned, no write of the older epoch changes a byte any more.
BOOST_AUTO_TEST_CASE(raising_the_epoch_is_a_fence)
{
    Bench bench;
    for (std::uint64_t epoch = 5; epoch < 60; ++epoch) {
        std::vector<std::thread> threads;
        std::atomic<std::uint64_t> next_version{epoch * 1'000'000};
        for (int i = 0; i < 3; ++i) {
            threads.emplace_back([&] {
                auto access = kAccess;
                access.epoch = Epoch{epoch};
                while (true) {
                    const auto version = next_version.fetch_add(1);
                    if (!bench.write(static_cast<std::uint32_t>(version % 4), version, access)) return;
                }
            });
        }
        std::this_thread::sleep_for(std::chrono::microseconds{300});
        SPLITVISOR_CHECK(bench.store.set_epoch(kRegion, Epoch{epoch + 1}).ok());
        auto access = kAccess;
        access.epoch = Epoch{epoch + 1};
        std::array<std::uint64_t, 4> at_once{};
        for (std::uint32_t i = 0; i < 4; ++i) at_once[i] = bench.read(i, access).entry.version;
        for (auto& thread : threads) thread.join();
        for (std::uint32_t i = 0; i < 4; ++i) {
            const auto later = bench.read(i, access).entry.version;
            BOOST_TEST(later == at_once[i]);
        }
    }
}

BOOST_AUTO_TEST_CASE(deleting_waits_for_requests_that_run)
{
    for (int round = 0; round < 50; ++round) {
        Bench bench;
        std::vector<std::thread> threads;
        for (std::uint32_t i = 0; i < 3; ++i) {
            threads.emplace_back([&bench, i] {
                for (std::uint64_t version = 1; bench.write(i, version).ok(); ++version) {
                }
            });
        }
        std::this_thread::sleep_for(std::chrono::microseconds{200});
        BOOST_TEST(bench.store.delete_region(kRegion).ok());
        BOOST_TEST(bench.store.stats().stored_pages == 0u);
        for (auto& thread : threads) thread.join();
        BOOST_TEST(bench.store.stats().stored_pages == 0u);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::remote_mem
