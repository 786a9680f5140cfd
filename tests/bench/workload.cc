#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "base/log.h"
#include "base/text.h"
#include "tests/bench/program.h"
#include "tests/bench/workload_bench.h"
#include "vcpu/kvm.h"

// workload: how much slower programs run when most of their memory is remote. See README.md.
namespace splitvisor::bench {
namespace {

struct CommandLine {
    std::string workload = "all";
    std::string memory = "128M";
    std::string excache = "25%";
    std::string backing = "tcp";
    std::string mechanism = "auto";
    std::string baseline_pages = "4k";
    WorkloadOptions options;
    bool quick = false;
    bool json = false;
};

void add_options(CLI::App& app, CommandLine& line)
{
    std::string names = "all";
    for (const auto& workload : ring3::workloads()) names += ", " + std::string{workload.name};
    auto& options = line.options;
    app.add_option("--workload", line.workload, "One of: " + names)->capture_default_str();
    app.add_option("--memory", line.memory, "Memory of the guest")->capture_default_str();
    app.add_option("--excache", line.excache, "Local part of it: a size or a percentage")->capture_default_str();
    app.add_option("--vcpus", options.vcpus, "vCPUs: 1 or 2")->capture_default_str();
    app.add_option("--backing", line.backing, "Where remote pages are: tcp, inprocess, local (nothing is remote)")
        ->capture_default_str();
    app.add_option("--mechanism", line.mechanism, "How pages are withdrawn: auto, move, write-protect")
        ->capture_default_str();
    app.add_option("--handlers", options.handlers, "Fault handler threads")->capture_default_str();
    app.add_option("--runs", options.runs, "Runs of each side")->check(CLI::Range(1, 1000))->capture_default_str();
    app.add_option("--seed", options.seed, "Of all random numbers")->capture_default_str();
    app.add_option("--baseline-pages", line.baseline_pages, "Pages of the baseline's memory: 4k, or huge where the kernel can")
        ->check(CLI::IsMember({"4k", "huge"}))
        ->capture_default_str();
    app.add_flag("--quick", line.quick, "One run of each in a guest of 64 MiB: a self-check, not a measurement");
    app.add_flag("--json", line.json, "Print one JSON object");
}

Status complete(CommandLine& line)
{
    auto& options = line.options;
    if (line.quick) {
        line.memory = "64M";
        options.runs = 1;
    }
    const auto memory = parse_size(line.memory);
    if (!memory) return memory.error();
    const auto excache = parse_excache(line.excache, *memory);
    if (!excache) return excache.error();
    const auto backing = parse_backing(line.backing);
    if (!backing) return backing.error();
    const auto mechanism = parse_mechanism(line.mechanism);
    if (!mechanism) return mechanism.error();
    options.memory = *memory;
    options.excache = *excache;
    options.backing = *backing;
    options.mechanism = *mechanism;
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

Result<Report> measure(const CommandLine& line, std::string command)
{
    const auto& options = line.options;
    if (const auto system = vcpu::System::open(); !system) return system.error();
    std::unique_ptr<Backing> backing;
    if (options.backing != BackingKind::kLocal) {
        auto made = make_backing(options.backing, options.memory);
        if (!made) return made.error();
        backing = std::move(*made);
    }
    WorkloadBench bench{options, backing.get(), [](const std::string& text) { std::cerr << "workload: " << text << '\n'; }};
    auto rows = bench.run();
    if (!rows) return rows.error();
    return Report{.bench = "workload",
                  .command = std::move(command),
                  .settings = {{"memory", format_size(options.memory)},
                               {"excache", format_size(options.excache)},
                               {"vcpus", std::to_string(options.vcpus)},
                               {"backing", line.backing},
                               {"mechanism", line.mechanism},
                               {"handlers", std::to_string(options.handlers)},
                               {"baseline_pages", line.baseline_pages}},
                  .rows = std::move(*rows)};
}

int run(CommandLine& line, std::string command)
{
    if (const auto status = complete(line); !status) return finish("workload", status.error(), line.json);
    return finish("workload", measure(line, std::move(command)), line.json);
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
    return bench::run(line, bench::command_line({argv, static_cast<std::size_t>(argc)}));
}
