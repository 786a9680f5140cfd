#include <CLI/CLI.hpp>
#include <string>

#include "base/log.h"
#include "tests/bench/program.h"
#include "tests/bench/workload_bench.h"
#include "vcpu/kvm.h"

// workload: how much slower programs run when most of their memory is remote. See README.md.
namespace splitvisor::bench {
namespace {

struct CommandLine {
    CommonFlags common;
    std::string workload = "all";
    std::string backing = "tcp";
    std::string baseline_pages = "4k";
    WorkloadOptions options;
};

void add_options(CLI::App& app, CommandLine& line)
{
    std::string names = "all";
    for (const auto& workload : ring3::workloads()) names += ", " + std::string{workload.name};
    auto& options = line.options;
    app.add_option("--workload", line.workload, "One of: " + names)->capture_default_str();
    app.add_option("--vcpus", options.vcpus, "vCPUs: 1 or 2")->capture_default_str();
    app.add_option("--backing", line.backing, "Where remote pages are: tcp, shm, inprocess, local (nothing is remote)")
        ->capture_default_str();
    app.add_option("--baseline-pages", line.baseline_pages, "Pages of the baseline's memory: 4k, or huge where the kernel can")
        ->check(CLI::IsMember({"4k", "huge"}))
        ->capture_default_str();
    add_common_options(app, line.common, options.engine, options.runs, options.seed, "One run of each in a guest of 64 MiB");
}

Status complete(CommandLine& line)
{
    auto& options = line.options;
    if (line.common.quick) {
        line.common.memory = "64M";
        options.runs = 1;
    }
    SPLITVISOR_TRY(settle(line.common, options.engine));
    const auto backing = parse_backing(line.backing);
    if (!backing) return backing.error();
    options.backing = *backing;
    options.huge_baseline = line.baseline_pages == "huge";
    if (line.workload == "all") {
        options.workloads.assign(ring3::workloads().begin(), ring3::workloads().end());
        return {};
    }
    const auto workload = ring3::find_workload(line.workload);
    if (!workload) return workload.error();
    options.workloads = {*workload};
    return {};
}

Result<Report> measure(CommandLine& line, std::string command)
{
    SPLITVISOR_TRY(complete(line));
    const auto& options = line.options;
    if (const auto system = vcpu::System::open(); !system) return system.error();
    std::unique_ptr<Backing> backing;
    if (options.backing != BackingKind::kLocal) {
        auto made = make_backing(options.backing, options.engine.memory);
        if (!made) return made.error();
        backing = std::move(*made);
    }
    WorkloadBench bench{options, backing.get(), tell_as("workload")};
    auto rows = bench.run();
    if (!rows) return rows.error();
    auto settings = settings_of(line.common, options.engine);
    settings.emplace_back("vcpus", std::to_string(options.vcpus));
    settings.emplace_back("backing", line.backing);
    settings.emplace_back("baseline_pages", line.baseline_pages);
    return Report{
        .bench = "workload", .command = std::move(command), .settings = std::move(settings), .rows = std::move(*rows)};
}

}  // namespace
}  // namespace splitvisor::bench

int main(int argc, char** argv)
{
    using namespace splitvisor;
    start_log("workload", LogLevel::kWarning);
    CLI::App app{"Runs programs in a KVM guest whose memory is mostly remote, and beside each run the same with all memory\n"
                 "local; checks every result, and every page of memory afterwards.",
                 "workload"};
    bench::CommandLine line;
    bench::add_options(app, line);
    CLI11_PARSE(app, argc, argv);
    return bench::finish("workload", bench::measure(line, bench::command_line({argv, static_cast<std::size_t>(argc)})),
                         line.common.json);
}
