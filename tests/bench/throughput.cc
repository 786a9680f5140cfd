#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>

#include "base/log.h"
#include "tests/bench/program.h"
#include "tests/bench/throughput_bench.h"

// throughput: how many pages a second can be touched. See README.md.
namespace splitvisor::bench {
namespace {

/// A fault that nobody serves would hold this process for ever.
constexpr unsigned kLimitSeconds = 300;

struct CommandLine {
    CommonFlags common;
    ThroughputOptions options;
};

void add_options(CLI::App& app, CommandLine& line)
{
    auto& options = line.options;
    app.add_option("--threads", options.threads, "Threads that touch")->check(CLI::Range(1, 16))->capture_default_str();
    app.add_option("--run-ms", options.run_ms, "How long a run of one side lasts")
        ->check(CLI::Range(1, 60'000))
        ->capture_default_str();
    add_common_options(app, line.common, options.engine, options.runs, options.seed, "One short run of each in 24 MiB");
}

Status complete(CommandLine& line)
{
    auto& options = line.options;
    if (line.common.quick) {
        line.common.memory = "24M";
        options.runs = 1;
        options.run_ms = 100;
    }
    return settle(line.common, options.engine);
}

Result<Report> measure(CommandLine& line, std::string command)
{
    SPLITVISOR_TRY(complete(line));
    const auto& options = line.options;
    ThroughputBench bench{options, tell_as("throughput")};
    auto rows = bench.run();
    if (!rows) return rows.error();
    auto settings = settings_of(line.common, options.engine);
    settings.emplace_back("threads", std::to_string(options.threads));
    return Report{
        .bench = "throughput", .command = std::move(command), .settings = std::move(settings), .rows = std::move(*rows)};
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
    return bench::finish("throughput", bench::measure(line, bench::command_line({argv, static_cast<std::size_t>(argc)})), line.common.json);
}
