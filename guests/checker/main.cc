// vnode-checker: proves, from inside a guest, that memory keeps what was written to it.
#include <cstdio>
#include <memory>
#include <span>

#include "checker/arena.h"
#include "checker/ledger.h"
#include "checker/options.h"
#include "checker/workloads.h"

namespace splitvisor::checker {
namespace {

constexpr int kExitMismatch = 1;
constexpr int kExitUsage = 2;
constexpr int kExitCannotRun = 3;

Status run_mode(Mode mode, Work& work)
{
    switch (mode) {
    case Mode::kFill: return run_fill(work);
    case Mode::kRandom: return run_random(work);
    case Mode::kAtomic: return run_atomic(work);
    case Mode::kFork: return run_fork(work);
    case Mode::kMap: return run_map(work);
    }
    __builtin_unreachable();
}

bool goes_on(const Options& options, std::uint64_t rounds_done, const Report& report)
{
    if (report.mismatches() > 0) return false;
    if (options.seconds > 0) return report.seconds() < static_cast<double>(options.seconds);
    return rounds_done < options.rounds;
}

Status run_rounds(Work& work)
{
    for (std::uint64_t round = 0; goes_on(work.options, round, work.report); ++round) {
        for (const Mode mode : work.options.modes) {
            work.report.begin("round " + std::to_string(round + 1) + " " + to_string(mode));
            if (auto done = run_mode(mode, work); !done) return done.error().in(to_string(mode));
        }
    }
    return {};
}

Status check(Options& options, Report& report)
{
    const Pattern pattern{Seed{options.seed}};
    const std::uint64_t groups = options.mib * kMiB / (kPagesPerGroup * kPageBytes);
    std::unique_ptr<Ledger> ledger = make_memory_ledger(options.ledger.empty() ? groups : 0);
    if (!options.ledger.empty()) {
        auto opened = open_ledger(options.ledger, groups);
        if (!opened) return opened.error();
        ledger = std::move(*opened);
    }
    options.touches_per_visit = ledger->batch();
    auto arena = Arena::create({pattern, report, *ledger}, groups, options.huge);
    if (!arena) return arena.error();
    Work work{options, pattern, report, *arena, Random{options.seed}};
    return run_rounds(work);
}

int run(std::span<char* const> arguments)
{
    auto options = parse_options(arguments);
    if (!options) {
        std::fprintf(stderr, "vnode-checker: %s\n", options.error().message().c_str());
        return kExitUsage;
    }
    if (options->help) {
        std::fputs(kUsage, stdout);
        return 0;
    }
    Report report{Seed{options->seed}};
    const auto checked = check(*options, report);
    report.print_result(checked ? "" : checked.error().message());
    if (report.mismatches() > 0) return kExitMismatch;
    return checked ? 0 : kExitCannotRun;
}

}  // namespace
}  // namespace splitvisor::checker

int main(int argc, char** argv)
{
    return splitvisor::checker::run(std::span<char* const>{argv, static_cast<std::size_t>(argc)}.subspan(1));
}
