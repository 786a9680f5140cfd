#include "tests/bench/workload_bench.h"

#include <sys/mman.h>

#include <string>

#include "base/mapping.h"
#include "guests/ring3/machine_image.h"
#include "tests/bench/ring3_guest.h"

namespace splitvisor::bench {
namespace {

double seconds(std::uint64_t ns) { return static_cast<double>(ns) * 1e-9; }

/// What the fault engine did between two moments.
Figures engine_figures(const ept::EngineStats& before, const ept::EngineStats& after)
{
    const auto grown = [&](std::uint64_t ept::EngineStats::* counter) {
        return static_cast<double>(after.*counter - before.*counter);
    };
    const auto faults = grown(&ept::EngineStats::faults);
    const auto fault_us = grown(&ept::EngineStats::fault_ns_total) / 1000;
    return {{"faults", faults},
            {"remote_faults", grown(&ept::EngineStats::remote_faults)},
            {"remote_pages", grown(&ept::EngineStats::remote_pages)},
            {"zero_fills", grown(&ept::EngineStats::zero_fills)},
            {"victim_hits", grown(&ept::EngineStats::victim_hits)},
            {"evicted_clean", grown(&ept::EngineStats::evicted_clean)},
            {"evicted_zero", grown(&ept::EngineStats::evicted_zero)},
            {"written_back", grown(&ept::EngineStats::written_back)},
            {"room_stalls", grown(&ept::EngineStats::room_stalls)},
            {"mean_fault_us", faults > 0 ? fault_us / faults : 0},
            {"peak_lines", static_cast<double>(after.resident_peak)},
            {"capacity_lines", static_cast<double>(after.capacity_lines)}};
}

/// Touch workloads are told as time a touch; the others as time a run.
bool per_touch(const ring3::Workload& workload) { return workload.program == ring3::Program::kTouch; }

double in_unit(const ring3::Workload& workload, const ring3::Parameters& parameters, double work_seconds)
{
    if (!per_touch(workload)) return work_seconds;
    return work_seconds * 1e6 / static_cast<double>(parameters.operations);
}

}  // namespace

WorkloadBench::WorkloadBench(const WorkloadOptions& options, Backing* backing,
                             std::function<void(const std::string&)> progress)
    : options_{options}, backing_{backing}, progress_{std::move(progress)}
{
}

Result<std::vector<Row>> WorkloadBench::run()
{
    std::vector<Row> rows;
    for (const auto& workload : options_.workloads) {
        auto row = measure(workload);
        if (!row) return row.error().in(workload.name);
        rows.push_back(std::move(*row));
    }
    return rows;
}

Result<Row> WorkloadBench::measure(const ring3::Workload& workload)
{
    const auto parameters = ring3::make_parameters(workload, options_.engine.memory, options_.vcpus, options_.seed);
    if (!parameters) return parameters.error();
    const auto verifier = ring3::Verifier::create(*parameters);
    if (!verifier) return verifier.error();
    const Task task{workload, *parameters, **verifier};

    std::vector<double> ours;
    std::vector<double> baseline;
    std::vector<Figures> figures;
    bool verified = true;
    for (std::uint32_t i = 0; i < options_.runs; ++i) {
        progress_(std::string{workload.name} + ", run " + std::to_string(i + 1) + " of " + std::to_string(options_.runs));
        // Whoever comes second finds other caches and clocks: they take turns.
        const bool ours_first = i % 2 == 0;
        auto first = ours_first ? run_remote(task) : run_local(task, options_.huge_baseline);
        if (!first) return first.error();
        auto second = ours_first ? run_local(task, options_.huge_baseline) : run_remote(task);
        if (!second) return second.error();
        const auto& [our_run, base_run] = ours_first ? std::tie(*first, *second) : std::tie(*second, *first);
        ours.push_back(in_unit(workload, *parameters, our_run.work_seconds));
        baseline.push_back(in_unit(workload, *parameters, base_run.work_seconds));
        figures.push_back(our_run.figures);
        figures.back().insert(figures.back().begin(), {{"prepare_seconds", our_run.prepare_seconds},
                                                       {"baseline_prepare_seconds", base_run.prepare_seconds}});
        const bool both_right = is_right(our_run, workload, "ours") & is_right(base_run, workload, "baseline");
        verified = verified && both_right;
    }
    auto row = compare("workload." + std::string{workload.name}, per_touch(workload) ? "us/touch" : "seconds", ours,
                       baseline);
    row.verified = verified;
    row.figures = median_figures(figures);
    return row;
}

bool WorkloadBench::is_right(const Run& run, const ring3::Workload& workload, const char* side) const
{
    if (run.verdict) return true;
    progress_(std::string{workload.name} + ", " + side + ": WRONG RESULT: " + run.verdict.error().message());
    return false;
}

Result<WorkloadBench::Run> WorkloadBench::run_remote(const Task& task)
{
    if (backing_ == nullptr) return run_local(task, false);
    auto store = backing_->open(options_.engine.memory);
    if (!store) return store.error();
    ept::FaultEngine* engine_pointer = nullptr;
    ept::EngineStats before;
    ept::EngineStats after;
    Ring3Guest guest{[&](ring3::Step step) {
        if (step == ring3::Step::kPrepared) before = engine_pointer->stats();
        if (step == ring3::Step::kWorked) after = engine_pointer->stats();
    }};
    auto engine = ept::FaultEngine::start(options_.engine, **store, [&](const Error& error) { guest.fail(error); });
    if (!engine) return engine.error();
    engine_pointer = engine->get();
    const auto ram = engine_pointer->memory();
    const auto times = guest.run(ram, task.parameters, options_.deadline_ms);
    if (!times) return times.error();
    return Run{.prepare_seconds = seconds(times->prepare_ns),
               .work_seconds = seconds(times->work_ns),
               .verdict = task.verifier.check(ring3::read_outcomes(ram, task.parameters), ring3::arena_of(ram)),
               .figures = engine_figures(before, after)};
}

Result<WorkloadBench::Run> WorkloadBench::run_local(const Task& task, bool huge)
{
    auto memory = Mapping::anonymous(options_.engine.memory);
    if (!memory) return memory.error();
    if (huge && ::madvise(memory->data(), memory->size(), MADV_HUGEPAGE) != 0) {
        return Error::from_errno("madvise(MADV_HUGEPAGE)");
    }
    Ring3Guest guest;
    const auto times = guest.run(memory->bytes(), task.parameters, options_.deadline_ms);
    if (!times) return times.error();
    const auto ram = memory->bytes();
    return Run{.prepare_seconds = seconds(times->prepare_ns),
               .work_seconds = seconds(times->work_ns),
               .verdict = task.verifier.check(ring3::read_outcomes(ram, task.parameters), ring3::arena_of(ram)),
               .figures = {}};
}

}  // namespace splitvisor::bench
