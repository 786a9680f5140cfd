#include "tests/bench/report.h"

#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "base/log.h"
#include "base/text.h"

namespace splitvisor::bench {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Spread& spread)
{
    return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}, {"runs", spread.runs}};
}

Json to_json(const Row& row)
{
    Json json{{"name", row.name}, {"unit", row.unit}, {"ours", to_json(row.ours)}};
    if (row.baseline) json["baseline"] = to_json(*row.baseline);
    if (row.ratio) json["ratio"] = *row.ratio;
    json["verified"] = row.verified;
    if (!row.figures.empty()) {
        for (const auto& [name, value] : row.figures) json["figures"][name] = value;
    }
    return json;
}

std::string utc_date()
{
    const auto now = ::time(nullptr);
    tm fields{};
    ::gmtime_r(&now, &fields);
    std::array<char, 32> text{};
    const auto length = ::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &fields);
    return {text.data(), length};
}

std::string processor_name()
{
    std::ifstream file{"/proc/cpuinfo"};
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with("model name")) continue;
        const auto colon = line.find(": ");
        if (colon != std::string::npos) return line.substr(colon + 2);
    }
    return "unknown processor";
}

std::string formatted(const char* format, double value)
{
    std::array<char, 64> text{};
    const auto length = std::snprintf(text.data(), text.size(), format, value);
    return {text.data(), static_cast<std::size_t>(std::clamp(length, 0, 63))};
}

std::string short_number(double value) { return formatted("%.4g", value); }

std::string range_text(const Spread& spread)
{
    return short_number(spread.median) + " (" + short_number(spread.min) + ".." + short_number(spread.max) + ")";
}

using Cells = std::vector<std::string>;

void print_cells(std::ostream& out, const std::vector<Cells>& lines)
{
    std::vector<std::size_t> widths(lines.front().size());
    for (const auto& line : lines) {
        for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    }
    for (const auto& line : lines) {
        std::string text;
        for (std::size_t i = 0; i < line.size(); ++i) {
            text += line[i] + std::string(widths[i] - line[i].size() + 2, ' ');
        }
        text.erase(text.find_last_not_of(' ') + 1);
        out << text << '\n';
    }
}

}  // namespace

double median_of(std::span<const double> values)
{
    SPLITVISOR_CHECK(!values.empty());
    std::vector<double> sorted{values.begin(), values.end()};
    std::sort(sorted.begin(), sorted.end());
    const auto middle = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

Spread spread_of(std::span<const double> values)
{
    const auto [min, max] = std::minmax_element(values.begin(), values.end());
    return {median_of(values), *min, *max, static_cast<std::uint32_t>(values.size())};
}

Row compare(std::string name, std::string unit, std::span<const double> ours, std::span<const double> baseline)
{
    SPLITVISOR_CHECK(ours.size() == baseline.size());
    std::vector<double> ratios;
    for (std::size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / baseline[i]);
    return {.name = std::move(name),
            .unit = std::move(unit),
            .ours = spread_of(ours),
            .baseline = spread_of(baseline),
            .ratio = median_of(ratios),
            .verified = false,
            .figures = {}};
}

Figures median_figures(std::span<const Figures> runs)
{
    SPLITVISOR_CHECK(!runs.empty());
    Figures medians;
    for (std::size_t i = 0; i < runs.front().size(); ++i) {
        std::vector<double> values;
        for (const auto& run : runs) {
            SPLITVISOR_CHECK(run.size() == runs.front().size() && run[i].first == runs.front()[i].first);
            values.push_back(run[i].second);
        }
        medians.emplace_back(runs.front()[i].first, median_of(values));
    }
    return medians;
}

std::string command_line(std::span<const char* const> arguments)
{
    std::string line;
    for (const std::string_view argument : arguments) {
        if (!line.empty()) line += ' ';
        const bool plain = !argument.empty() && argument.find_first_of(" \t\n'\"\\$&|;<>*?()") == std::string_view::npos;
        line += plain ? std::string{argument} : "'" + std::string{argument} + "'";
    }
    return line;
}

std::string machine_description()
{
    utsname system{};
    ::uname(&system);
    const auto pages = static_cast<std::uint64_t>(std::max(0l, ::sysconf(_SC_PHYS_PAGES)));
    return processor_name() + ", " + std::to_string(::sysconf(_SC_NPROCESSORS_ONLN)) + " processors, " +
           format_size(ByteCount{pages << kPageShift}) + ", Linux " + system.release;
}

void print_json(std::ostream& out, const Report& report)
{
    Json json{{"bench", report.bench}, {"command", report.command}, {"date", utc_date()},
              {"machine", machine_description()}};
    for (const auto& [name, value] : report.settings) json["settings"][name] = value;
    json["rows"] = Json::array();
    for (const auto& row : report.rows) json["rows"].push_back(to_json(row));
    // A command line may hold any bytes; they must not end the report.
    out << json.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

void print_table(std::ostream& out, const Report& report)
{
    out << report.bench << " on " << machine_description() << '\n';
    for (const auto& [name, value] : report.settings) out << name << ' ' << value << "  ";
    out << "\n\n";
    std::vector<Cells> lines{{"name", "unit", "ours (min..max)", "baseline (min..max)", "ratio", "runs", "verified"}};
    for (const auto& row : report.rows) {
        lines.push_back({row.name, row.unit, range_text(row.ours), row.baseline ? range_text(*row.baseline) : "-",
                         row.ratio ? formatted("%.2f", *row.ratio) : "-", std::to_string(row.ours.runs),
                         row.verified ? "yes" : "NO"});
    }
    print_cells(out, lines);
    for (const auto& row : report.rows) {
        if (row.figures.empty()) continue;
        out << '\n' << row.name << ':';
        for (const auto& [name, value] : row.figures) out << ' ' << name << ' ' << short_number(value) << ';';
    }
    out << '\n';
}

}  // namespace splitvisor::bench
