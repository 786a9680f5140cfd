#include "remote-mem/client.h"

#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <new>
#include <random>
#include <thread>

#include "tests/fakes/local_memory_monitor.h"
#include "tests/unit/remote-mem/pages.h"

namespace {

/// Allocations of this thread.
thread_local std::uint64_t allocations = 0;

void* counted(std::size_t size)
{
    ++allocations;
    void* memory = std::malloc(size);
    if (memory == nullptr) std::abort();
    return memory;
}

}  // namespace

// noinline: GCC would otherwise see free() meet what it takes for the built-in new.
__attribute__((noinline)) void* operator new(std::size_t size) { return counted(size); }
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace splitvisor::remote_mem {

namespace {

using fakes::LocalMemoryMonitor;

constexpr RegionId kFirst{1};
constexpr RegionId kSecond{2};
constexpr std::uint32_t kRegionPages = 1'024;
constexpr ByteCount kRegionSize{kRegionPages * kPageBytes};

/// Two regions on two mComponents, the second mirrored on both.
struct Bench {
    LocalMemoryMonitor a{"a"};
    LocalMemoryMonitor b{"b"};
    std::unique_ptr<RemoteMemory> memory;
    std::unique_ptr<PageSession> session;

    Bench()
    {
        a.create_region(kFirst, kRegionSize);
        a.create_region(kSecond, kRegionSize);
        b.create_region(kSecond, kRegionSize);
        memory = RemoteMemory::create({.regions = {{kRegionSize, {a.replica(kFirst)}},
                                                   {kRegionSize, {b.replica(kSecond), a.replica(kSecond)}}},
                                       .epoch = Epoch{1},
                                       .patience_ms = 3'000})
                     .value();
        session = memory->open_session().value();
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(client)

BOOST_AUTO_TEST_CASE(reads_what_it_wrote)
{
    Bench bench;
    BOOST_TEST(write_page(*bench.session, 0, 1).ok());
    BOOST_TEST(write_page(*bench.session, kRegionPages, 2).ok());
    BOOST_TEST(holds(*bench.session, 0, 1));
    BOOST_TEST(holds(*bench.session, kRegionPages, 2));
    const auto absent = read_page(*bench.session, 5);
    BOOST_TEST(absent.status.ok());
    BOOST_TEST(!absent.present);
    BOOST_TEST((absent.page == Page(kPageBytes, std::byte{0xee})), "absent pages stay untouched");
    BOOST_TEST(bench.a.store().stats().stored_pages == 2u);
    BOOST_TEST(bench.b.store().stats().stored_pages == 1u, "mirrored");
}

BOOST_AUTO_TEST_CASE(a_zero_page_is_present)
{
    Bench bench;
    const Page zeros(kPageBytes);
    const auto write = write_of(Line{7}, zeros, 4);
    BOOST_REQUIRE(bench.session->write({&write, 1}).ok());
    const auto back = read_page(*bench.session, 7);
    BOOST_TEST(back.present);
    BOOST_TEST((back.version == Version{4}));
    BOOST_TEST((back.page == zeros));
}

// Many pages of both regions in any order, more than one request takes, some absent, some zero, some twice.
BOOST_AUTO_TEST_CASE(carries_large_mixed_calls)
{
    Bench bench;
    std::mt19937 random{5};
    std::vector<std::uint32_t> lines(2 * kRegionPages);
    for (std::uint32_t i = 0; i < lines.size(); ++i) lines[i] = i;
    std::ranges::shuffle(lines, random);
    std::vector<Page> pages;
    std::vector<PageWrite> writes;
    for (std::uint32_t i = 0; i < 1'500; ++i) pages.push_back(i % 10 == 0 ? Page(kPageBytes) : page_of(lines[i], 3));
    for (std::uint32_t i = 0; i < 1'500; ++i) writes.push_back(write_of(Line{lines[i]}, pages[i], 3));
    BOOST_REQUIRE(bench.session->write(writes).ok());

    std::ranges::shuffle(lines, random);
    lines.push_back(lines.front());
    std::vector<Page> back(lines.size(), Page(kPageBytes, std::byte{0xee}));
    std::vector<PageRead> reads;
    for (std::size_t i = 0; i < lines.size(); ++i) reads.push_back({.line = Line{lines[i]}, .into = back[i].data()});
    BOOST_REQUIRE(bench.session->read(reads).ok());
    std::uint32_t wrong = 0;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const auto written = std::ranges::find(writes, Line{lines[i]}, &PageWrite::line);
        const bool right = written == writes.end()
                               ? !reads[i].present
                               : reads[i].present && reads[i].version == Version{3} &&
                                     std::memcmp(back[i].data(), written->from, kPageBytes) == 0;
        wrong += right ? 0u : 1u;
    }
    BOOST_TEST(wrong == 0u);
    BOOST_TEST(bench.memory->stats().pages_written == 1'500u);
    BOOST_TEST(bench.memory->stats().connects == 2u);
    BOOST_TEST(bench.memory->stats().failures == 0u);
}

BOOST_AUTO_TEST_CASE(drops_on_every_replica)
{
    Bench bench;
    std::vector<Line> lines;
    for (std::uint32_t line = 0; line < 2 * kRegionPages; ++line) {
        BOOST_REQUIRE(write_page(*bench.session, line, 1).ok());
        lines.push_back(Line{line});
    }
    BOOST_TEST(bench.a.store().stats().stored_pages == 2 * kRegionPages);
    BOOST_REQUIRE(bench.session->drop(lines, Version{5}).ok());
    BOOST_TEST(bench.a.store().stats().stored_pages == 0u);
    BOOST_TEST(bench.b.store().stats().stored_pages == 0u);
    BOOST_TEST(!read_page(*bench.session, 3).present);
    BOOST_TEST(write_page(*bench.session, 3, 4).ok());
    BOOST_TEST(!read_page(*bench.session, 3).present, "a late write does not undo the drop");
    BOOST_TEST(bench.memory->stats().stale_pages == 1u);
}

// The later of two writes of one line in one call wins, also where the call must be sorted.
BOOST_AUTO_TEST_CASE(keeps_the_order_within_a_call)
{
    Bench bench;
    const auto old = page_of(9, 1);
    const auto current = page_of(9, 2);
    const auto other = page_of(kRegionPages, 2);
    const std::array<PageWrite, 3> writes{write_of(Line{kRegionPages}, other, 2), write_of(Line{9}, old, 2),
                                          write_of(Line{9}, current, 2)};
    BOOST_REQUIRE(bench.session->write(writes).ok());
    BOOST_TEST(holds(*bench.session, 9, 2));
}

BOOST_AUTO_TEST_CASE(refuses_a_line_outside)
{
    Bench bench;
    BOOST_TEST((write_page(*bench.session, 2 * kRegionPages, 1).error().code() == ErrorCode::kInvalid));
    BOOST_TEST((read_page(*bench.session, ~0u).status.error().code() == ErrorCode::kInvalid));
    BOOST_TEST(bench.session->read({}).ok());
    BOOST_TEST(bench.session->write({}).ok());
    BOOST_TEST(bench.session->drop({}, Version{1}).ok());
}

BOOST_AUTO_TEST_CASE(an_older_lease_is_fenced)
{
    Bench bench;
    BOOST_REQUIRE(write_page(*bench.session, kRegionPages, 1).ok());
    // One replica has heard of the new lease, the other not yet: that is enough.
    BOOST_REQUIRE(bench.a.store().set_epoch(kSecond, Epoch{2}).ok());
    BOOST_TEST((write_page(*bench.session, kRegionPages, 2).error().code() == ErrorCode::kStale));
    BOOST_REQUIRE(bench.b.store().set_epoch(kSecond, Epoch{2}).ok());
    BOOST_TEST((write_page(*bench.session, kRegionPages, 3).error().code() == ErrorCode::kStale));
    BOOST_TEST((read_page(*bench.session, kRegionPages).status.error().code() == ErrorCode::kStale));
    const Line line{kRegionPages};
    BOOST_TEST((bench.session->drop({&line, 1}, Version{9}).error().code() == ErrorCode::kStale));
    BOOST_TEST(bench.memory->stats().lost.empty());
    BOOST_TEST(write_page(*bench.session, 0, 1).ok(), "the session itself is in order");
}

BOOST_AUTO_TEST_CASE(a_wrong_capability_opens_nothing)
{
    Bench bench;
    auto replica = bench.a.replica(kFirst);
    replica.capability[15] = std::byte{0};
    const auto memory = RemoteMemory::create({.regions = {{kRegionSize, {replica}}}, .epoch = Epoch{1}, .patience_ms = 500});
    BOOST_REQUIRE(memory.ok());
    BOOST_TEST(((*memory)->open_session().error().code() == ErrorCode::kDenied));
    replica.region = RegionId{99};
    const auto other = RemoteMemory::create({.regions = {{kRegionSize, {replica}}}, .epoch = Epoch{1}, .patience_ms = 500});
    BOOST_TEST(((*other)->open_session().error().code() == ErrorCode::kNotFound));
}

BOOST_AUTO_TEST_CASE(sessions_work_beside_each_other)
{
    Bench bench;
    std::vector<std::thread> threads;
    std::atomic<std::uint32_t> wrong{0};
    for (std::uint32_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            auto session = bench.memory->open_session().value();
            for (std::uint64_t round = 1; round <= 200; ++round) {
                const auto line = static_cast<std::uint32_t>(t + 4 * (round * 37 % (kRegionPages / 2)));
                if (!write_page(*session, line, round) || !holds(*session, line, round)) ++wrong;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    BOOST_TEST(wrong == 0u);
}

BOOST_AUTO_TEST_CASE(allocates_nothing_in_steady_state)
{
    Bench bench;
    Page page = page_of(1, 1);
    PageRead read{.line = Line{kRegionPages + 1}, .into = page.data()};
    const Line dropped{3};
    const auto once = [&](std::uint64_t version) {
        const std::array<PageWrite, 2> writes{write_of(Line{1}, page, version),
                                              write_of(Line{kRegionPages + 1}, page, version)};
        return bench.session->write(writes).ok() && bench.session->read({&read, 1}).ok() &&
               bench.session->drop({&dropped, 1}, Version{version}).ok();
    };
    bool good = once(1) && once(2);
    const auto before = allocations;
    for (std::uint64_t version = 3; version < 500; ++version) good = once(version) && good;
    const auto after = allocations;
    BOOST_TEST(good);
    BOOST_TEST(before > 0u);
    BOOST_TEST(after - before == 0u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::remote_mem
