#include "tests/bench/report.h"

#include <array>
#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

using namespace splitvisor::bench;

BOOST_AUTO_TEST_SUITE(report)

BOOST_AUTO_TEST_CASE(medians_of_odd_and_even_numbers_of_values)
{
    BOOST_TEST(median_of(std::array{3.0, 1.0, 2.0}) == 2.0);
    BOOST_TEST(median_of(std::array{4.0, 1.0, 2.0, 3.0}) == 2.5);
    const auto spread = spread_of(std::array{5.0, 1.0, 9.0});
    BOOST_TEST(spread.median == 5.0);
    BOOST_TEST(spread.min == 1.0);
    BOOST_TEST(spread.max == 9.0);
    BOOST_TEST(spread.runs == 3u);
}

BOOST_AUTO_TEST_CASE(the_ratio_is_taken_pair_by_pair)
{
    // The machine became ten times slower after the first pair: the ratio of the medians would be 10.
    const auto row = compare("a.b", "seconds", std::array{2.0, 20.0, 20.0}, std::array{1.0, 2.0, 10.0});
    BOOST_TEST(*row.ratio == 2.0);
    BOOST_TEST(row.ours.median == 20.0);
    BOOST_TEST(row.baseline->median == 2.0);
    BOOST_TEST(!row.verified);
}

BOOST_AUTO_TEST_CASE(figures_of_several_runs_become_medians)
{
    const std::vector<Figures> runs{{{"faults", 1}, {"pages", 10}}, {{"faults", 3}, {"pages", 30}}};
    const auto medians = median_figures(runs);
    BOOST_TEST(medians.size() == 2u);
    BOOST_TEST(medians[0].first == "faults");
    BOOST_TEST(medians[0].second == 2.0);
    BOOST_TEST(medians[1].second == 20.0);
}

BOOST_AUTO_TEST_CASE(json_holds_every_field)
{
    Report report{.bench = "x", .command = "x --json", .settings = {{"memory", "1 MiB"}}, .rows = {}};
    report.rows.push_back(compare("x.one", "us", std::array{2.0}, std::array{1.0}));
    report.rows.back().verified = true;
    report.rows.back().figures = {{"faults", 7}};
    report.rows.push_back({.name = "x.two", .unit = "us", .ours = spread_of(std::array{1.0}), .baseline = {}, .ratio = {},
                           .verified = false, .figures = {}});
    std::ostringstream out;
    print_json(out, report);
    const auto json = nlohmann::json::parse(out.str());
    for (const auto* name : {"bench", "command", "date", "machine", "rows"}) BOOST_TEST(json.contains(name), name);
    BOOST_TEST(json["date"].get<std::string>().size() == 20u);
    BOOST_TEST(json["settings"]["memory"] == "1 MiB");
    const auto& first = json["rows"][0];
    BOOST_TEST(first["name"] == "x.one");
    BOOST_TEST(first["ours"]["median"] == 2.0);
    BOOST_TEST(first["baseline"]["runs"] == 1);
    BOOST_TEST(first["ratio"] == 2.0);
    BOOST_TEST(first["verified"] == true);
    BOOST_TEST(first["figures"]["faults"] == 7);
    const auto& second = json["rows"][1];
    BOOST_TEST(!second.contains("baseline"));
    BOOST_TEST(!second.contains("ratio"));
    BOOST_TEST(second["verified"] == false);
}

BOOST_AUTO_TEST_CASE(a_command_of_any_bytes_does_not_break_the_json)
{
    const char* const arguments[] = {"x", "--name", "a b\"\xff\x01", ""};
    std::ostringstream out;
    print_json(out, {.bench = "x", .command = command_line(arguments), .settings = {}, .rows = {}});
    BOOST_TEST(nlohmann::json::accept(out.str()));
    BOOST_TEST(command_line(std::array<const char*, 3>{"x", "a b", ""}) == "x 'a b' ''");
}

BOOST_AUTO_TEST_SUITE_END()
