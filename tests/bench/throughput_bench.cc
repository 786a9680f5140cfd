#include "tests/bench/throughput_bench.h"

#include <atomic>
#include <span>

#include "base/clock.h"
#include "base/mapping.h"
#include "base/thread.h"
#include "tests/bench/backing.h"
#include "tests/bench/in_process_store.h"
#include "tests/bench/pagers.h"
#include "tests/bench/stream_server.h"

namespace splitvisor::bench {
namespace {

/// Pages between two looks at the clock.
constexpr std::uint32_t kPagesAtOnce = 16;

struct Outcome {
    double rate = 0;  ///< pages a second
    bool right = true;
};

/// What one thread does with its number, until the moment; returns pages, and clears the flag if one was wrong.
using Work = std::function<std::uint64_t(std::uint32_t thread, std::uint64_t end_ns, std::atomic<bool>& right)>;

Outcome in_threads(std::uint32_t threads, std::uint64_t run_ms, const Work& work)
{
    std::atomic<std::uint64_t> pages{0};
    std::atomic<bool> right{true};
    const auto start_ns = now_ns();
    {
        std::vector<Thread> running;
        for (std::uint32_t i = 0; i < threads; ++i) {
            running.emplace_back("touch", [&, i] { pages.fetch_add(work(i, start_ns + run_ms * 1'000'000, right)); });
        }
    }
    const auto seconds = static_cast<double>(now_ns() - start_ns) * 1e-9;
    return {static_cast<double>(pages.load()) / seconds, right.load()};
}

std::uint32_t lines_of(std::span<const std::byte> memory) { return static_cast<std::uint32_t>(memory.size() >> kPageShift); }

Outcome scan(std::span<const std::byte> memory, const ThroughputOptions& options)
{
    return in_threads(options.threads, options.run_ms, [&](std::uint32_t thread, std::uint64_t end_ns, std::atomic<bool>& right) {
        const auto part = lines_of(memory) / options.threads;
        std::uint64_t pages = 0;
        for (std::uint32_t i = 0; pages % kPagesAtOnce != 0 || now_ns() < end_ns; i = (i + 1) % part, ++pages) {
            const Line line{thread * part + i};
            if (!is_stamped(memory.data() + line.byte_offset(), line)) right = false;
        }
        return pages;
    });
}

Outcome read_at_random(std::span<const std::byte> memory, const ThroughputOptions& options, std::uint64_t seed)
{
    return in_threads(options.threads, options.run_ms, [&](std::uint32_t thread, std::uint64_t end_ns, std::atomic<bool>& right) {
        PageDice dice{seed * 1'000 + thread};
        std::uint64_t pages = 0;
        for (; pages % kPagesAtOnce != 0 || now_ns() < end_ns; ++pages) {
            const auto line = dice.throw_among(lines_of(memory));
            if (!is_stamped(memory.data() + line.byte_offset(), line)) right = false;
        }
        return pages;
    });
}

Outcome stream(std::span<const std::unique_ptr<StreamClient>> clients, const ThroughputOptions& options)
{
    return in_threads(options.threads, options.run_ms, [&](std::uint32_t thread, std::uint64_t end_ns, std::atomic<bool>& right) {
        std::uint64_t pages = 0;
        while (now_ns() < end_ns) {
            const auto batch = clients[thread]->next();
            if (!batch) end_for_lost_memory(batch.error());
            for (std::uint32_t i = 0; i < kStreamPages; ++i, ++pages) {
                if (!is_stamped(batch->pages + i * kPageBytes, batch->first + i)) right = false;
            }
        }
        return pages;
    });
}

/// The first write of each page, then a look at what is there.
Outcome fill(std::span<std::byte> memory, const ThroughputOptions& options)
{
    const auto word_of = [&](std::uint32_t line) {
        return reinterpret_cast<std::uint64_t*>(memory.data() + Line{line}.byte_offset());
    };
    auto outcome = in_threads(options.threads, 0, [&](std::uint32_t thread, std::uint64_t, std::atomic<bool>&) {
        const auto part = lines_of(memory) / options.threads;
        for (std::uint32_t i = thread * part; i < (thread + 1) * part; ++i) *word_of(i) = i + 1;
        return std::uint64_t{part};
    });
    for (std::uint32_t i = 0; i < lines_of(memory) / options.threads * options.threads; ++i) {
        std::uint64_t others = 0;
        for (std::size_t k = 1; k < kPageBytes / sizeof(std::uint64_t); ++k) others |= word_of(i)[k];
        if (*word_of(i) != i + 1 || others != 0) outcome.right = false;
    }
    return outcome;
}

Result<Outcome> fill_through_engine(const ThroughputOptions& options)
{
    auto store = make_in_process_store(options.engine.memory);
    if (!store) return store.error();
    auto all_local = options.engine;
    all_local.excache = all_local.memory;
    const auto engine = make_engine_memory(all_local, std::move(*store));
    if (!engine) return engine.error();
    return fill((*engine)->memory(), options);
}

Result<Outcome> fill_local(const ThroughputOptions& options)
{
    const auto memory = Mapping::anonymous(options.engine.memory);
    if (!memory) return memory.error();
    return fill(memory->bytes(), options);
}

struct Runs {
    std::vector<double> rates;
    bool right = true;

    void add(const Outcome& outcome)
    {
        rates.push_back(outcome.rate);
        right = right && outcome.right;
    }
};

Row make_row(std::string name, const Runs& ours, const Runs& baseline)
{
    auto row = compare(std::move(name), "pages/s", ours.rates, baseline.rates);
    row.verified = ours.right && baseline.right;
    return row;
}

struct Sides {
    std::unique_ptr<Backing> backing;
    std::unique_ptr<StreamServer> stream_server;
    Pagers pagers;
    std::vector<std::unique_ptr<StreamClient>> clients;
};

Result<Sides> make_sides(const ThroughputOptions& options)
{
    auto backing = make_backing(BackingKind::kTcp, options.engine.memory);
    if (!backing) return backing.error();
    auto remote = make_plain_remote(PlainKind::kTcpSleeping, options.engine.memory);
    if (!remote) return remote.error();
    auto server = StreamServer::start(options.engine.memory);
    if (!server) return server.error();
    // All servers are processes by now; what follows starts threads.
    Sides sides;
    sides.stream_server = std::make_unique<StreamServer>(std::move(*server));
    for (std::uint32_t i = 0; i < options.threads; ++i) {
        auto client = StreamClient::connect(*sides.stream_server, options.engine.memory);
        if (!client) return client.error();
        sides.clients.push_back(std::move(*client));
    }
    auto pagers = make_pagers(options.engine, **backing, std::move(*remote));
    if (!pagers) return pagers.error();
    sides.backing = std::move(*backing);
    sides.pagers = std::move(*pagers);
    return sides;
}

}  // namespace

ThroughputBench::ThroughputBench(const ThroughputOptions& options, std::function<void(const std::string&)> progress)
    : options_{options}, progress_{std::move(progress)}
{
}

Result<std::vector<Row>> ThroughputBench::run()
{
    std::vector<Row> rows;
    SPLITVISOR_TRY(measure_tcp(rows));
    SPLITVISOR_TRY(measure_zero_fill(rows));
    return rows;
}

Status ThroughputBench::measure_tcp(std::vector<Row>& rows)
{
    progress_("filling");
    const auto sides = make_sides(options_);
    if (!sides) return sides.error();
    Runs ours, textbook, streamed, ours_random, textbook_random;
    for (std::uint32_t i = 0; i < options_.runs; ++i) {
        progress_("run " + std::to_string(i + 1) + " of " + std::to_string(options_.runs));
        ours.add(scan(sides->pagers.ours->memory(), options_));
        streamed.add(stream(sides->clients, options_));
        wait_until_idle_processors_halt();
        textbook.add(scan(sides->pagers.textbook->memory(), options_));
        textbook_random.add(read_at_random(sides->pagers.textbook->memory(), options_, options_.seed + i));
        ours_random.add(read_at_random(sides->pagers.ours->memory(), options_, options_.seed + i));
    }
    rows.push_back(make_row("throughput.seq.tcp.textbook", ours, textbook));
    rows.push_back(make_row("throughput.seq.tcp.stream", ours, streamed));
    rows.push_back(make_row("throughput.random.tcp.textbook", ours_random, textbook_random));
    return {};
}

Status ThroughputBench::measure_zero_fill(std::vector<Row>& rows)
{
    progress_("zero fill");
    Runs ours, local;
    // Memory that this machine has not used before costs ten times as much to touch.
    if (const auto warm = fill_local(options_); !warm) return warm.error();
    for (std::uint32_t i = 0; i < options_.runs; ++i) {
        const auto our_run = fill_through_engine(options_);
        if (!our_run) return our_run.error();
        const auto local_run = fill_local(options_);
        if (!local_run) return local_run.error();
        ours.add(*our_run);
        local.add(*local_run);
    }
    rows.push_back(make_row("throughput.zerofill.local", ours, local));
    return {};
}

}  // namespace splitvisor::bench
