#include "tests/bench/fault_bench.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/clock.h"
#include "base/mapping.h"
#include "ept/userfault.h"
#include "tests/bench/pagers.h"

namespace splitvisor::bench {
namespace {

/// A line here is all that a further transport needs.
constexpr std::array kTcpFloors{PlainKind::kTcpSpinning, PlainKind::kTcpSleeping};
constexpr std::array kShmFloors{PlainKind::kShmSpinning, PlainKind::kShmSleeping};
constexpr std::array kMemoryFloors{PlainKind::kMemory};
constexpr std::array kTransports{
    Transport{"tcp", BackingKind::kTcp, PlainKind::kTcpSleeping, kTcpFloors},
    // The textbook knows no shared memory.
    Transport{"shm", BackingKind::kShm, PlainKind::kTcpSleeping, kShmFloors},
    Transport{"inprocess", BackingKind::kInProcess, PlainKind::kMemory, kMemoryFloors},
};

constexpr ByteCount kFloorMemory{8 * kMiB};

struct Samples {
    std::vector<double> us;
    bool right = true;
};

/// Of sorted values, by nearest rank.
double quantile(const std::vector<double>& sorted, double part)
{
    const auto last = sorted.size() - 1;
    return sorted[std::min(last, static_cast<std::size_t>(part * static_cast<double>(sorted.size())))];
}

Figures quantiles(const std::string& side, std::vector<double> us)
{
    std::sort(us.begin(), us.end());
    return {{side + "p50_us", quantile(us, 0.5)}, {side + "p90_us", quantile(us, 0.9)}, {side + "p99_us", quantile(us, 0.99)}};
}

double us_between(std::uint64_t start_ns, std::uint64_t end_ns) { return static_cast<double>(end_ns - start_ns) / 1000; }

void touch(const std::byte* page) { (void)*static_cast<const volatile std::byte*>(page); }

std::uint64_t times_slept()
{
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::uint64_t>(usage.ru_nvcsw);
}

/// Only touches that fetched a page from elsewhere are samples: what was local, or a victim line, is left out.
Samples touch_absent(const PagedMemory& paged, PageDice& dice, const FaultOptions& options)
{
    const auto memory = paged.memory();
    const auto lines = static_cast<std::uint32_t>(memory.size() >> kPageShift);
    const auto end_ns = now_ns() + options.run_ms * 1'000'000;
    Samples samples;
    samples.us.reserve(options.faults);
    auto fetches = paged.counters().remote_faults;
    while (samples.us.size() < options.faults && now_ns() < end_ns) {
        const auto line = dice.throw_among(lines);
        const auto* page = memory.data() + line.byte_offset();
        const auto start_ns = now_ns();
        touch(page);
        const auto touched_ns = now_ns();
        samples.right = is_stamped(page, line) && samples.right;
        const auto before = std::exchange(fetches, paged.counters().remote_faults);
        if (fetches != before) samples.us.push_back(us_between(start_ns, touched_ns));
    }
    return samples;
}

/// What no pager can do without.
class Floor {
  public:
    static Result<std::unique_ptr<Floor>> create(std::unique_ptr<PlainRemote> remote)
    {
        auto memory = Mapping::anonymous(kFloorMemory);
        if (!memory) return memory.error();
        auto userfault = ept::Userfault::create();
        if (!userfault) return userfault.error();
        SPLITVISOR_TRY(userfault->watch(memory->bytes()));
        auto floor = std::unique_ptr<Floor>{new Floor{std::move(*memory), std::move(*userfault), std::move(remote)}};
        SPLITVISOR_TRY(floor->store_pages());
        return floor;
    }

    struct Run {
        Samples samples;
        Figures figures;
    };
    Result<Run> measure(PageDice dice, const FaultOptions& options)
    {
        const auto end_ns = now_ns() + options.run_ms * 1'000'000;
        Samples all;
        std::vector<double> round_trips;
        while (all.us.empty() || (all.us.size() < options.faults && now_ns() < end_ns)) {
            const auto line = dice.throw_among(lines());
            auto* page = memory_.data() + line.byte_offset();
            const auto start_ns = now_ns();
            SPLITVISOR_TRY(remote_->read(line, landing_.data()));
            const auto arrived_ns = now_ns();
            SPLITVISOR_TRY(userfault_.copy(page, landing_.data(), PageCount{1}));
            touch(page);
            all.us.push_back(us_between(start_ns, now_ns()));
            round_trips.push_back(us_between(start_ns, arrived_ns));
            all.right = is_stamped(page, line) && all.right;
            if (::madvise(page, kPageBytes, MADV_DONTNEED) != 0) return Error::from_errno("madvise(MADV_DONTNEED)");
        }
        auto figures = quantiles("baseline_", all.us);
        figures.emplace_back("baseline_round_trip_us", median_of(round_trips));
        return Run{std::move(all), std::move(figures)};
    }

  private:
    Floor(Mapping memory, ept::Userfault userfault, std::unique_ptr<PlainRemote> remote)
        : memory_{std::move(memory)}, userfault_{std::move(userfault)}, remote_{std::move(remote)}
    {
    }

    [[nodiscard]] std::uint32_t lines() const { return static_cast<std::uint32_t>(memory_.size() >> kPageShift); }

    Status store_pages()
    {
        for (std::uint32_t i = 0; i < lines(); ++i) {
            stamp_page(landing_.data(), Line{i});
            SPLITVISOR_TRY(remote_->write(Line{i}, landing_.data()));
        }
        return {};
    }

    Mapping memory_;
    ept::Userfault userfault_;
    std::unique_ptr<PlainRemote> remote_;
    alignas(kPageBytes) std::array<std::byte, kPageBytes> landing_{};
};

/// Both pagers and the floor over one transport, filled and ready.
struct Sides {
    std::unique_ptr<Backing> backing;
    Pagers pagers;
    std::vector<std::unique_ptr<Floor>> floors;  ///< one for each way of waiting
};

Result<Sides> make_sides(const Transport& transport, const FaultOptions& options)
{
    auto backing = make_backing(transport.backing, options.engine.memory);
    if (!backing) return backing.error();
    auto textbook_remote = make_plain_remote(transport.textbook, options.engine.memory);
    if (!textbook_remote) return textbook_remote.error();
    std::vector<std::unique_ptr<Floor>> floors;
    for (const auto kind : transport.floors) {
        auto remote = make_plain_remote(kind, kFloorMemory);
        if (!remote) return remote.error();
        auto floor = Floor::create(std::move(*remote));
        if (!floor) return floor.error();
        floors.push_back(std::move(*floor));
    }
    // All servers are processes by now; what follows starts threads.
    auto pagers = make_pagers(options.engine, **backing, std::move(*textbook_remote));
    if (!pagers) return pagers.error();
    return Sides{std::move(*backing), std::move(*pagers), std::move(floors)};
}

/// All runs of one side.
struct Runs {
    std::vector<double> medians;
    std::vector<Figures> figures;
    bool right = true;

    Status add(const Samples& samples, Figures run_figures)
    {
        if (samples.us.empty()) return Error{ErrorCode::kTimeout, "no page was fetched while a run lasted"};
        medians.push_back(median_of(samples.us));
        figures.push_back(std::move(run_figures));
        right = right && samples.right;
        return {};
    }
};

Status run_pager(const PagedMemory& paged, const std::string& side, PageDice dice, const FaultOptions& options, Runs& runs)
{
    const auto before = paged.counters();
    const auto slept = times_slept();
    const auto samples = touch_absent(paged, dice, options);
    if (samples.us.empty()) return runs.add(samples, {});
    const auto switches = static_cast<double>(times_slept() - slept);
    const auto after = paged.counters();
    const auto faults = static_cast<double>(after.remote_faults - before.remote_faults);
    auto figures = quantiles(side, samples.us);
    figures.emplace_back(side + "sleeps_per_fault", switches / faults);
    figures.emplace_back(side + "pages_per_fault", static_cast<double>(after.fetched - before.fetched) / faults);
    figures.emplace_back(side + "room_stalls_per_fault", static_cast<double>(after.room_stalls - before.room_stalls) / faults);
    return runs.add(samples, std::move(figures));
}

/// The quicker way of waiting counts: which one that is depends on whether a processor is free.
Status run_floors(std::span<const std::unique_ptr<Floor>> floors, PageDice dice, const FaultOptions& options, Runs& runs)
{
    std::optional<Floor::Run> best;
    for (const auto& floor : floors) {
        auto run = floor->measure(dice, options);
        if (!run) return run.error();
        if (!best || median_of(run->samples.us) < median_of(best->samples.us)) best = std::move(*run);
    }
    return runs.add(best->samples, std::move(best->figures));
}

Row make_row(std::string name, const Runs& ours, const Runs& baseline)
{
    auto row = compare(std::move(name), "us", ours.medians, baseline.medians);
    row.verified = ours.right && baseline.right;
    row.figures = median_figures(ours.figures);
    const auto theirs = median_figures(baseline.figures);
    row.figures.insert(row.figures.end(), theirs.begin(), theirs.end());
    return row;
}

}  // namespace

std::span<const Transport> transports() { return kTransports; }

Result<Transport> find_transport(std::string_view name)
{
    std::string known;
    for (const auto& transport : kTransports) {
        if (transport.name == name) return transport;
        known += (known.empty() ? "" : ", ") + std::string{transport.name};
    }
    return Error{ErrorCode::kInvalid, "'" + std::string{name} + "' is not a transport; there are " + known};
}

FaultBench::FaultBench(const FaultOptions& options, std::function<void(const std::string&)> progress)
    : options_{options}, progress_{std::move(progress)}
{
}

Result<std::vector<Row>> FaultBench::run()
{
    std::vector<Row> rows;
    for (const auto& transport : options_.transports) {
        progress_(std::string{transport.name});
        if (const auto status = measure(transport, rows); !status) return status.error().in(transport.name);
    }
    return rows;
}

Status FaultBench::measure(const Transport& transport, std::vector<Row>& rows)
{
    auto sides = make_sides(transport, options_);
    if (!sides) return sides.error();
    Runs ours;
    Runs textbook;
    Runs floor;
    for (std::uint32_t i = 0; i < options_.runs; ++i) {
        const PageDice dice{options_.seed + i};
        // They take turns at being first: whoever comes later finds other caches and clocks.
        for (std::uint32_t turn = 0; turn < 3; ++turn) {
            switch ((turn + i) % 3) {
            case 0: SPLITVISOR_TRY(run_pager(*sides->pagers.ours, "", dice, options_, ours)); break;
            case 1:
                wait_until_idle_processors_halt();
                SPLITVISOR_TRY(run_pager(*sides->pagers.textbook, "baseline_", dice, options_, textbook));
                break;
            default: SPLITVISOR_TRY(run_floors(sides->floors, dice, options_, floor));
            }
        }
    }
    const auto prefix = "fault." + std::string{transport.name};
    rows.push_back(make_row(prefix + ".textbook", ours, textbook));
    rows.push_back(make_row(prefix + ".floor", ours, floor));
    return {};
}

}  // namespace splitvisor::bench
