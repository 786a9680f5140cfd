#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>

#include "base/log.h"
#include "tests/bench/fault_bench.h"
#include "tests/bench/program.h"

// fault: how long one touch of an absent page takes. See README.md.
namespace splitvisor::bench {
namespace {

/// A fault that nobody serves would hold this process for ever.
constexpr unsigned kLimitSeconds = 300;

struct CommandLine {
    CommonFlags common;
    std::string transport = "all";
    FaultOptions options;
};

void add_options(CLI::App& app, CommandLine& line)
{
    std::string names = "all";
    for (const auto& transport : transports()) names += ", " + std::string{transport.name};
    auto& options = line.options;
    app.add_option("--transport", line.transport, "One of: " + names)->capture_default_str();
    app.add_option("--faults", options.faults, "Faults of each run")->check(CLI::Range(1, 100'000))->capture_default_str();
    add_common_options(app, line.common, options.engine, options.runs, options.seed, "One short run of each in 24 MiB");
}

Status complete(CommandLine& line)
{
    auto& options = line.options;
    if (line.common.quick) {
        line.common.memory = "24M";
        options.runs = 1;
        options.faults = 200;
    }
    SPLITVISOR_TRY(settle(line.common, options.engine));
    if (line.transport == "all") {
        options.transports.assign(transports().begin(), transports().end());
        return {};
    }
    const auto transport = find_transport(line.transport);
    if (!transport) return transport.error();
    options.transports = {*transport};
    return {};
}

Result<Report> measure(CommandLine& line, std::string command)
{
    SPLITVISOR_TRY(complete(line));
    const auto& options = line.options;
    FaultBench bench{options, tell_as("fault")};
    auto rows = bench.run();
    if (!rows) return rows.error();
    auto settings = settings_of(line.common, options.engine);
    settings.emplace_back("faults", std::to_string(options.faults));
    return Report{.bench = "fault", .command = std::move(command), .settings = std::move(settings), .rows = std::move(*rows)};
}

}  // namespace
}  // namespace splitvisor::bench

int main(int argc, char** argv)
{
    using namespace splitvisor;
    start_log("fault", LogLevel::kWarning);
    CLI::App app{"Measures one fault on an absent page, and beside it the same under a textbook pager, and what no pager can do\n"
                 "without; checks every page it touched.",
                 "fault"};
    bench::CommandLine line;
    bench::add_options(app, line);
    CLI11_PARSE(app, argc, argv);
    ::alarm(bench::kLimitSeconds);
    return bench::finish("fault", bench::measure(line, bench::command_line({argv, static_cast<std::size_t>(argc)})), line.common.json);
}
