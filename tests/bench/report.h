#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// What every program in this folder prints; README.md describes the fields.
namespace splitvisor::bench {

/// Several measurements of one thing.
struct Spread {
    double median = 0;
    double min = 0;
    double max = 0;
    std::uint32_t runs = 0;
};

/// The median of an even number of values is the mean of the middle two. `values` is not empty.
[[nodiscard]] double median_of(std::span<const double> values);
[[nodiscard]] Spread spread_of(std::span<const double> values);

using Figures = std::vector<std::pair<std::string, double>>;

struct Row {
    std::string name;  ///< stable, dotted
    std::string unit;
    Spread ours;
    std::optional<Spread> baseline;
    std::optional<double> ratio;  ///< ours to baseline: the median over the pairs of runs that were made side by side
    bool verified = false;        ///< the result of every single run was checked and right
    Figures figures;              ///< whatever explains the result; medians over the runs
};

/// A row of runs that were made in pairs: ours[i] beside baseline[i]. Both have the same size, at least 1, and no
/// baseline is 0.
[[nodiscard]] Row compare(std::string name, std::string unit, std::span<const double> ours,
                          std::span<const double> baseline);

/// Figures of several runs become one: by name, in the order of the first run. All runs have the same names.
[[nodiscard]] Figures median_figures(std::span<const Figures> runs);

struct Report {
    std::string bench;
    std::string command;  ///< as it was typed
    std::vector<std::pair<std::string, std::string>> settings;
    std::vector<Row> rows;
};

[[nodiscard]] std::string command_line(std::span<const char* const> arguments);

/// Processor, number of processors, memory, kernel: one line.
[[nodiscard]] std::string machine_description();

/// One JSON object: the report, the date (UTC, ISO 8601) and the machine.
void print_json(std::ostream& out, const Report& report);

/// The same for people.
void print_table(std::ostream& out, const Report& report);

}  // namespace splitvisor::bench
