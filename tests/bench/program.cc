#include "tests/bench/program.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/text.h"

namespace splitvisor::bench {
namespace {

/// "auto", "move" or "write-protect".
Result<ept::Mechanism> parse_mechanism(std::string_view text)
{
    if (text == "auto") return ept::Mechanism::kAuto;
    if (text == "move") return ept::Mechanism::kMove;
    if (text == "write-protect") return ept::Mechanism::kWriteProtect;
    return Error{ErrorCode::kInvalid, "'" + std::string{text} + "' is not a mechanism; there are auto, move, write-protect"};
}

/// The local part of a memory: a size, or a percentage from "1%" to "100%".
Result<ByteCount> parse_excache(std::string_view text, ByteCount memory)
{
    if (!text.ends_with('%')) return parse_size(text);
    const auto percent = parse_number(text.substr(0, text.size() - 1));
    if (!percent || *percent == 0 || *percent > 100) {
        return Error{ErrorCode::kInvalid, "'" + std::string{text} + "' is not a part of the memory; write 1% to 100%"};
    }
    return PageCount::of(ByteCount{memory.value() / 100 * *percent}).bytes();
}

}  // namespace

void add_common_options(CLI::App& app, CommonFlags& flags, ept::EngineOptions& engine, std::uint32_t& runs,
                        std::uint64_t& seed, const std::string& quick)
{
    app.add_option("--memory", flags.memory, "Memory of each side")->capture_default_str();
    app.add_option("--excache", flags.excache, "Local part of it: a size or a percentage")->capture_default_str();
    app.add_option("--mechanism", flags.mechanism, "How pages are withdrawn: auto, move, write-protect")
        ->capture_default_str();
    app.add_option("--handlers", engine.handlers, "Fault handler threads")->capture_default_str();
    app.add_option("--runs", runs, "Runs of each side")->check(CLI::Range(1, 1000))->capture_default_str();
    app.add_option("--seed", seed, "Of all random numbers")->capture_default_str();
    app.add_flag("--quick", flags.quick, quick + ": a self-check, not a measurement");
    app.add_flag("--json", flags.json, "Print one JSON object");
}

Status settle(const CommonFlags& flags, ept::EngineOptions& engine)
{
    const auto memory = parse_size(flags.memory);
    if (!memory) return memory.error();
    const auto excache = parse_excache(flags.excache, *memory);
    if (!excache) return excache.error();
    const auto mechanism = parse_mechanism(flags.mechanism);
    if (!mechanism) return mechanism.error();
    engine.memory = *memory;
    engine.excache = *excache;
    engine.mechanism = *mechanism;
    return {};
}

std::vector<std::pair<std::string, std::string>> settings_of(const CommonFlags& flags, const ept::EngineOptions& engine)
{
    return {{"memory", format_size(engine.memory)},
            {"excache", format_size(engine.excache)},
            {"mechanism", flags.mechanism},
            {"handlers", std::to_string(engine.handlers)}};
}

std::function<void(const std::string&)> tell_as(std::string_view program)
{
    return [program](const std::string& text) { std::cerr << program << ": " << text << '\n'; };
}

int finish(std::string_view program, const Result<Report>& report, bool json)
{
    const auto fail = [&](const Error& error) {
        std::cerr << program << ": " << error.message() << '\n';
        return 1;
    };
    if (!report) return fail(report.error());
    json ? print_json(std::cout, *report) : print_table(std::cout, *report);
    for (const auto& row : report->rows) {
        if (!row.verified) return fail(Error{ErrorCode::kCorrupt, row.name + " has a wrong result"});
    }
    return 0;
}

}  // namespace splitvisor::bench
