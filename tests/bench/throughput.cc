#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "base/log.h"
#include "base/text.h"
#include "tests/bench/throughput_bench.h"
#include "tests/bench/program.h"

// throughput: how many pages a second can be touched. See README.md.
namespace splitvisor::bench {
namespace {

/// A fault that nobody serves would hold this process for ever.
constexpr unsigned kLimitSeconds = 300;

struct CommandLine {
    std::string memory = "128M";
    std::string excache = "25%";
    std::string mechanism = "auto";
    ThroughputOptions options;
    bool quick = false;
    bool json = false;
};

void add_options(CLI::App& app, CommandLine& line)
{
    auto& options = line.options;
    app.add_option("--memory", line.memory, "Memory of each side")->capture_default_str();
    app.add_option("--excache", line.excache, "Local part of it: a size or a percentage")->capture_default_str();
    app.add_option("--mechanism", line.mechanism, "How pages are withdrawn: auto, move, write-protect")
        ->capture_default_str();
    app.add_option("--handlers", options.handlers, "Fault handler threads")->capture_default_str();
    app.add_option("--threads", options.threads, "Threads that touch")->check(CLI::Range(1, 16))->capture_default_str();
    app.add_option("--runs", options.runs, "Runs of each side")->check(CLI::Range(1, 1000))->capture_default_str();
    app.add_option("--run-ms", options.run_ms, "How long a run of one side lasts")
        ->check(CLI::Range(1, 60'000))
        ->capture_default_str();
    app.add_option("--seed", options.seed, "Of all random numbers")->capture_default_str();
    app.add_flag("--quick", line.quick, "One short run of each in 24 MiB: a self-check, not a measurement");
    app.add_flag("--json", line.json, "Print one JSON object");
}

Status complete(CommandLine& line)
{
    auto& options = line.options;
    if (line.quick) {
        line.memory = "24M";
        options.runs = 1;
        options.run_ms = 100;
    }
    const auto memory = parse_size(line.memory);
    if (!memory) return memory.error();
    const auto excache = parse_excache(line.excache, *memory);
    if (!excache) return excache.error();
    const auto mechanism = parse_mechanism(line.mechanism);
    if (!mechanism) return mechanism.error();
    options.memory = *memory;
    options.excache = *excache;
    options.mechanism = *mechanism;
    return {};
}

Result<Report> measure(CommandLine& line, std::string command)
{
    SPLITVISOR_TRY(complete(line));
    const auto& options = line.options;
    ThroughputBench bench{options, [](const std::string& text) { std::cerr << "throughput: " << text << '\n'; }};
    auto rows = bench.run();
    if (!rows) return rows.error();
    return Report{.bench = "throughput",
                  .command = std::move(command),
                  .settings = {{"memory", format_size(options.memory)},
                               {"excache", format_size(options.excache)},
                               {"mechanism", line.mechanism},
                               {"handlers", std::to_string(options.handlers)},
                               {"threads", std::to_string(options.threads)}},
                  .rows = std::move(*rows)};
}

}  // namespace
}  // namespace splitvisor::bench

int main(int argc, char** argv)
{
    using namespace splitvisor;
    start_log("throughput", LogLevel::kWarning);
    CLI::App app{"Measures pages a second, and beside it the same under a textbook pager, the transport's own rate, and local memory;\n"
                 "checks every page it touched.",
                 "throughput"};
    bench::CommandLine line;
    bench::add_options(app, line);
    CLI11_PARSE(app, argc, argv);
    ::alarm(bench::kLimitSeconds);
    return bench::finish("throughput", bench::measure(line, bench::command_line({argv, static_cast<std::size_t>(argc)})), line.json);
}
