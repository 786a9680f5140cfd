#include "ept/fault_engine.h"

#include <sys/mman.h>
#include <unistd.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "tests/fakes/memory_page_store.h"

using namespace splitvisor;
using namespace splitvisor::ept;
using fakes::MemoryPageStore;
namespace data = boost::unit_test::data;

// Not unnamed: Boost's data test cases have external linkage.
namespace fault_engine_test {

constexpr std::uint64_t kWordsPerPage = kPageBytes / sizeof(std::uint64_t);

/// Starts an engine over the fake store and counts its fatal errors.
struct Rig {
    explicit Rig(EngineOptions options)
    {
        auto started = FaultEngine::start(options, store, [this](const Error& error) {
            const std::lock_guard lock{mutex};
            BOOST_TEST_MESSAGE("fatal: " << error.message());
            fatal.push_back(error);
        });
        BOOST_REQUIRE_MESSAGE(started.ok(), (started.ok() ? "" : started.error().message()));
        engine = std::move(*started);
    }

    [[nodiscard]] volatile std::uint64_t* page(std::uint64_t index) const
    {
        return reinterpret_cast<volatile std::uint64_t*>(engine->memory().data() + index * kPageBytes);
    }
    [[nodiscard]] std::size_t fatal_errors()
    {
        const std::lock_guard lock{mutex};
        return fatal.size();
    }

    MemoryPageStore store;
    std::mutex mutex;
    std::vector<Error> fatal;
    std::unique_ptr<FaultEngine> engine;
};

inline EngineOptions options_of(Mechanism mechanism, std::uint64_t memory_mib, std::uint64_t excache_mib)
{
    return {.memory = ByteCount{memory_mib * kMiB},
            .excache = ByteCount{excache_mib * kMiB},
            .handlers = 2,
            .mechanism = mechanism};
}

inline void fill(const Rig& rig, std::uint64_t pages, std::uint64_t salt)
{
    for (std::uint64_t i = 0; i < pages; ++i) {
        rig.page(i)[0] = i + salt;
        rig.page(i)[kWordsPerPage - 1] = ~(i + salt);
    }
}

inline std::uint64_t mismatches(const Rig& rig, std::uint64_t pages, std::uint64_t salt)
{
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < pages; ++i) {
        if (rig.page(i)[0] != i + salt || rig.page(i)[kWordsPerPage - 1] != ~(i + salt)) ++wrong;
    }
    return wrong;
}

inline bool eventually(const std::function<bool()>& condition)
{
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (std::chrono::steady_clock::now() < end) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    return false;
}

/// Both, or on kernels before 6.8 the only one that they have.
inline std::vector<Mechanism> mechanisms_here()
{
    MemoryPageStore store;
    const auto moving = FaultEngine::start(options_of(Mechanism::kMove, 8, 4), store, [](const Error&) {});
    if (moving) return {Mechanism::kMove, Mechanism::kWriteProtect};
    BOOST_REQUIRE((moving.error().code() == ErrorCode::kUnsupported));
    return {Mechanism::kWriteProtect};
}

const auto kMechanisms = data::make(mechanisms_here());

}  // namespace fault_engine_test

using namespace fault_engine_test;

namespace splitvisor::ept {
std::ostream& operator<<(std::ostream& out, Mechanism mechanism)
{
    return out << (mechanism == Mechanism::kMove ? "move" : "write-protect");
}
}  // namespace splitvisor::ept

BOOST_AUTO_TEST_SUITE(fault_engine)

BOOST_AUTO_TEST_CASE(sizes_that_make_no_sense_are_refused_with_a_reason)
{
    MemoryPageStore store;
    const auto refusal = [&](EngineOptions options) {
        const auto engine = FaultEngine::start(options, store, [](const Error&) {});
        return engine ? std::string{} : engine.error().message();
    };
    BOOST_TEST(refusal(options_of(Mechanism::kAuto, 64, 65)).find("larger than the memory") != std::string::npos);
    BOOST_TEST(refusal(options_of(Mechanism::kAuto, 64, 1)).find("minimum") != std::string::npos);
    BOOST_TEST(refusal({.memory = ByteCount{4097}, .excache = ByteCount{4097}}).find("4 KiB") != std::string::npos);
    BOOST_TEST(refusal({}).find("4 KiB") != std::string::npos);
    auto no_handlers = options_of(Mechanism::kAuto, 64, 64);
    no_handlers.handlers = 0;
    BOOST_TEST(refusal(no_handlers).find("handlers") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(the_best_mechanism_of_the_kernel_is_chosen)
{
    const Rig rig{options_of(Mechanism::kAuto, 16, 8)};
    BOOST_TEST(rig.engine->stats().mechanism == (mechanisms_here().size() == 2 ? "move" : "write-protect"));
}

BOOST_DATA_TEST_CASE(memory_reads_as_zero_before_it_was_written, kMechanisms, mechanism)
{
    Rig rig{options_of(mechanism, 32, 8)};
    std::uint64_t set = 0;
    for (std::uint64_t i = 0; i < 8192; ++i) set |= rig.page(i)[i % kWordsPerPage];
    BOOST_TEST(set == 0u);
    // Nothing but zeros went through the cache four times over: not one page may have travelled.
    BOOST_TEST(rig.store.counts().pages_written == 0u);
    BOOST_TEST(rig.store.counts().pages_read == 0u);
    BOOST_TEST(rig.engine->stats().evicted_zero > 0u);
}

BOOST_DATA_TEST_CASE(content_survives_a_cache_of_an_eighth, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 64 * kMiB / kPageBytes;
    Rig rig{options_of(mechanism, 64, 8)};
    BOOST_TEST(rig.engine->stats().mechanism == (mechanism == Mechanism::kMove ? "move" : "write-protect"));
    for (std::uint64_t round = 0; round < 3; ++round) {
        fill(rig, kPages, round * 1000);
        BOOST_TEST(mismatches(rig, kPages, round * 1000) == 0u);
    }
    const auto stats = rig.engine->stats();
    BOOST_TEST(stats.written_back > 3 * stats.capacity_lines);
    BOOST_TEST(stats.remote_pages > 0u);
    BOOST_TEST(rig.store.counts().stale_pages == 0u);
    BOOST_TEST(rig.fatal_errors() == 0u);
}

BOOST_DATA_TEST_CASE(a_clean_page_is_not_written_again, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 32 * kMiB / kPageBytes;
    Rig rig{options_of(mechanism, 32, 8)};
    fill(rig, kPages, 1);
    BOOST_TEST(mismatches(rig, kPages, 1) == 0u);
    BOOST_REQUIRE(eventually([&] { return rig.engine->stats().victim_lines > 0; }));
    BOOST_TEST(mismatches(rig, kPages, 1) == 0u);
    const auto written = rig.store.counts().pages_written;
    for (int round = 0; round < 3; ++round) BOOST_TEST(mismatches(rig, kPages, 1) == 0u);
    BOOST_TEST(rig.engine->stats().evicted_clean > kPages);
    // At most what was still dirty in the cache when the count was taken.
    BOOST_TEST(rig.store.counts().pages_written - written <= rig.engine->stats().capacity_lines);
}

BOOST_DATA_TEST_CASE(the_cache_never_exceeds_its_bound, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 64 * kMiB / kPageBytes;
    Rig rig{options_of(mechanism, 64, 8)};
    std::atomic<bool> stop{false};
    std::uint64_t worst_kib = 0;
    // The kernel's own count of what is there: guest pages and victim slots are the anonymous mappings above 1 MiB.
    std::thread watcher{[&] {
        const auto* base = rig.engine->memory().data();
        std::vector<unsigned char> here(kPages);
        while (!stop) {
            if (::mincore(const_cast<std::byte*>(base), kPages * kPageBytes, here.data()) != 0) continue;
            std::uint64_t resident = 0;
            for (const auto flag : here) resident += flag & 1u;
            worst_kib = std::max(worst_kib, resident * 4);
            std::this_thread::sleep_for(std::chrono::milliseconds{2});
        }
    }};
    for (std::uint64_t round = 0; round < 4; ++round) fill(rig, kPages, round);
    stop = true;
    watcher.join();
    BOOST_TEST(rig.engine->stats().resident_peak <= 8 * kMiB / kPageBytes);
    BOOST_TEST(worst_kib <= 8 * 1024u);
    BOOST_TEST(worst_kib > 4 * 1024u);
}

/// Threads write versions to their own words of shared pages and check them, while the evictor takes pages at random:
/// a write that falls between reading a page and unmapping it would be lost here.
BOOST_DATA_TEST_CASE(no_write_is_lost_while_pages_are_taken_at_random, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 3000;
    constexpr std::uint64_t kThreads = 3;
    auto options = options_of(mechanism, 16, 8);
    options.torture = true;
    Rig rig{options};
    rig.store.set_delay_us(50);
    std::atomic<std::uint64_t> lost{0};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            std::vector<std::uint64_t> expected(kPages, 0);
            std::mt19937_64 random{t};
            const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{3};
            while (std::chrono::steady_clock::now() < end) {
                for (int i = 0; i < 1000; ++i) {
                    // Half of the accesses go to a few pages that are written all the time.
                    const auto page = random() % 2 == 0 ? random() % 64 : random() % kPages;
                    volatile auto* word = rig.page(page) + t;
                    if (*word != expected[page]) ++lost;
                    *word = ++expected[page];
                }
            }
            for (std::uint64_t page = 0; page < kPages; ++page) {
                if (rig.page(page)[t] != expected[page]) ++lost;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    BOOST_TEST(lost == 0u);
    BOOST_TEST(rig.fatal_errors() == 0u);
    BOOST_TEST(rig.store.counts().stale_pages == 0u);
    const auto stats = rig.engine->stats();
    BOOST_TEST_MESSAGE("victim hits " << stats.victim_hits << ", written back " << stats.written_back << ", remote "
                                      << stats.remote_pages);
    BOOST_TEST(stats.victim_hits > 0u);
    BOOST_TEST(stats.written_back > 0u);
}

/// System calls of the VMM read and write guest buffers whose pages are away.
BOOST_DATA_TEST_CASE(a_system_call_on_absent_guest_memory_waits_for_its_pages, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 4096;
    auto options = options_of(mechanism, 16, 4);
    Rig rig{options};
    fill(rig, kPages, 5);
    int pipe_ends[2];
    BOOST_REQUIRE(::pipe(pipe_ends) == 0);
    const Fd reader{pipe_ends[0]};
    const Fd writer{pipe_ends[1]};
    std::vector<std::byte> copy(kPageBytes);
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < kPages; ++i) {
        const auto from = rig.engine->memory().subspan(i * kPageBytes, kPageBytes);
        BOOST_REQUIRE(write_all(writer.get(), from).ok());
        BOOST_REQUIRE(read_all(reader.get(), copy).ok());
        std::uint64_t first = 0;
        std::memcpy(&first, copy.data(), sizeof first);
        if (first != i + 5) ++wrong;
        std::memset(copy.data(), static_cast<int>(i & 0x7f) + 1, copy.size());
        BOOST_REQUIRE(write_all(writer.get(), copy).ok());
        BOOST_REQUIRE(read_all(reader.get(), rig.engine->memory().subspan(i * kPageBytes, kPageBytes)).ok());
    }
    for (std::uint64_t i = 0; i < kPages; ++i) {
        const auto byte = static_cast<std::uint64_t>((i & 0x7f) + 1);
        if (rig.page(i)[9] != byte * 0x0101010101010101u) ++wrong;
    }
    BOOST_TEST(wrong == 0u);
}

BOOST_DATA_TEST_CASE(a_fault_is_served_while_the_write_back_hangs, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 32 * kMiB / kPageBytes;
    Rig rig{options_of(mechanism, 32, 8)};
    rig.store.block();
    std::atomic<std::uint64_t> written{0};
    std::thread guest{[&] {
        for (std::uint64_t i = 0; i < kPages; ++i) {
            rig.page(i)[0] = i + 1;
            ++written;
        }
    }};
    BOOST_REQUIRE(rig.store.wait_for_blocked(1, std::chrono::seconds{20}));
    BOOST_REQUIRE(written >= 64u);
    // The oldest pages were evicted first and lie in victim slots, not acknowledged: they must be readable.
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < 64; ++i) wrong += rig.page(i)[0] == i + 1 ? 0u : 1u;
    BOOST_TEST(wrong == 0u);
    BOOST_TEST(rig.engine->stats().victim_hits > 0u);
    BOOST_TEST(rig.store.counts().pages_written == 0u);
    rig.store.unblock();
    guest.join();
    for (std::uint64_t i = 0; i < kPages; ++i) wrong += rig.page(i)[0] == i + 1 ? 0u : 1u;
    BOOST_TEST(wrong == 0u);
}

BOOST_DATA_TEST_CASE(an_unreachable_store_delays_and_loses_nothing, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 32 * kMiB / kPageBytes;
    Rig rig{options_of(mechanism, 32, 8)};
    fill(rig, kPages, 9);
    rig.store.fail_next(5, ErrorCode::kUnavailable);
    BOOST_TEST(mismatches(rig, kPages, 9) == 0u);
    fill(rig, kPages, 10);
    rig.store.lose_acknowledgements(5);
    fill(rig, kPages, 11);
    BOOST_TEST(mismatches(rig, kPages, 11) == 0u);
    BOOST_TEST(rig.engine->stats().retries >= 5u);
    BOOST_TEST(rig.engine->stats().waiting_for == "");
    BOOST_TEST(rig.fatal_errors() == 0u);
}

BOOST_DATA_TEST_CASE(sequences_are_read_before_the_guest_is_there, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 32 * kMiB / kPageBytes;
    Rig rig{options_of(mechanism, 32, 8)};
    fill(rig, kPages, 3);
    rig.store.set_delay_us(200);
    const auto before = rig.engine->stats();
    std::uint64_t wrong = mismatches(rig, kPages, 3);
    for (std::uint64_t i = kPages; i-- > 0;) wrong += rig.page(i)[0] == i + 3 ? 0u : 1u;
    BOOST_TEST(wrong == 0u);
    const auto stats = rig.engine->stats();
    const auto windows = stats.ahead_windows - before.ahead_windows;
    BOOST_TEST_MESSAGE(windows << " windows ahead, " << stats.ahead_reached - before.ahead_reached << " reached, "
                               << stats.ahead_pages - before.ahead_pages << " pages");
    BOOST_TEST(stats.ahead_pages - before.ahead_pages > kPages / 4);
    BOOST_TEST(stats.ahead_reached - before.ahead_reached > windows / 2);
    BOOST_TEST(rig.fatal_errors() == 0u);
}

/// Pages that are on their way, or have landed, while others forget them, take them and touch them.
BOOST_DATA_TEST_CASE(what_is_read_ahead_may_be_forgotten_and_taken_at_any_time, kMechanisms* data::make({false, true}),
                     mechanism, torture)
{
    constexpr std::uint64_t kKept = 4096;
    constexpr std::uint64_t kPages = 2 * kKept;
    auto options = options_of(mechanism, 32, 8);
    options.handlers = 3;
    options.torture = torture;
    Rig rig{options};
    fill(rig, kPages, 1);
    rig.store.set_delay_us(100);
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> wrong{0};
    std::vector<std::thread> threads;
    for (const bool up : {true, false}) {
        threads.emplace_back([&, up] {
            // Each has its own word of the kept pages, and only looks at the others.
            const std::uint64_t word = up ? 1 : 2;
            for (std::uint64_t round = 0; !stop; ++round) {
                for (std::uint64_t step = 0; step < kPages && !stop; ++step) {
                    const auto i = up ? step : kPages - 1 - step;
                    auto* page = rig.page(i);
                    const auto first = page[0];
                    const auto last = page[kWordsPerPage - 1];
                    const bool whole = first == i + 1 && last == ~(i + 1);
                    // Forgotten before the first look, or between the two.
                    const bool gone = i >= kKept && last == 0 && (first == 0 || first == i + 1);
                    if (!whole && !gone) ++wrong;
                    if (i >= kKept) continue;
                    if (page[word] != round) ++wrong;
                    page[word] = round + 1;
                }
            }
        });
    }
    std::mt19937 random{1};
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{2};
    while (std::chrono::steady_clock::now() < end) {
        const auto first = static_cast<std::uint32_t>(kKept + random() % (kKept - 8));
        rig.engine->forget(Line{first}, static_cast<std::uint32_t>(1 + random() % 8));
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    stop = true;
    for (auto& thread : threads) thread.join();
    BOOST_TEST(wrong == 0u);
    BOOST_TEST(rig.fatal_errors() == 0u);
    const auto stats = rig.engine->stats();
    BOOST_TEST(stats.ahead_windows > 0u);
    BOOST_TEST(stats.forgotten > 0u);
    BOOST_TEST(stats.resident_peak <= stats.capacity_lines);
}

BOOST_AUTO_TEST_CASE(a_fenced_engine_says_so_once_and_stops_writing)
{
    // The guest's thread stands in a fault that nobody serves any more, until the process ends: so must its memory.
    static Rig* const rig = new Rig{options_of(Mechanism::kAuto, 32, 8)};
    rig->store.fail_next(1'000'000, ErrorCode::kStale);
    std::thread{[] { fill(*rig, 8000, 1); }}.detach();
    BOOST_TEST(eventually([] { return rig->fatal_errors() == 1; }));
    BOOST_TEST((rig->fatal.front().code() == ErrorCode::kStale));
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
    BOOST_TEST(rig->store.counts().pages_written == 0u);
    BOOST_TEST(rig->fatal_errors() == 1u);
}

BOOST_DATA_TEST_CASE(forgotten_pages_read_as_zero_and_leave_the_store, kMechanisms, mechanism)
{
    constexpr std::uint64_t kPages = 32 * kMiB / kPageBytes;
    Rig rig{options_of(mechanism, 32, 8)};
    fill(rig, kPages, 77);
    BOOST_TEST(rig.store.present_pages() > 0u);
    rig.engine->forget(Line{0}, static_cast<std::uint32_t>(kPages));
    BOOST_TEST(eventually([&] { return rig.store.present_pages() == 0; }));
    BOOST_TEST(rig.engine->stats().resident_lines == 0u);
    std::uint64_t set = 0;
    for (std::uint64_t i = 0; i < kPages; ++i) set |= rig.page(i)[0] | rig.page(i)[kWordsPerPage - 1];
    BOOST_TEST(set == 0u);
    fill(rig, kPages, 78);
    BOOST_TEST(mismatches(rig, kPages, 78) == 0u);
}

/// A page that is forgotten and used again at once, over and over, under eviction: neither an old content may come back
/// nor a new one be dropped with the old.
BOOST_DATA_TEST_CASE(forgetting_races_with_use_and_eviction, kMechanisms, mechanism)
{
    constexpr std::uint32_t kPages = 1500;
    auto options = options_of(mechanism, 16, 8);
    options.torture = true;
    Rig rig{options};
    std::atomic<std::uint64_t> wrong{0};
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 2; ++t) {
        threads.emplace_back([&, t] {
            std::vector<std::uint64_t> expected(kPages, 0);
            std::mt19937_64 random{t + 99};
            const std::uint32_t first = t * kPages;
            const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{3};
            while (std::chrono::steady_clock::now() < end) {
                const auto index = static_cast<std::uint32_t>(random() % kPages);
                volatile auto* word = rig.page(first + index);
                if (*word != expected[index]) ++wrong;
                if (random() % 4 == 0) {
                    rig.engine->forget(Line{first + index}, 1);
                    expected[index] = 0;
                } else {
                    // Few different values, so that a new content may equal an old one in the store.
                    *word = expected[index] = 1 + random() % 2;
                }
            }
            for (std::uint32_t i = 0; i < kPages; ++i) wrong += rig.page(first + i)[0] == expected[i] ? 0u : 1u;
        });
    }
    for (auto& thread : threads) thread.join();
    BOOST_TEST(wrong == 0u);
    BOOST_TEST(rig.engine->stats().forgotten > 0u);
    BOOST_TEST(rig.fatal_errors() == 0u);
}

BOOST_AUTO_TEST_SUITE_END()
