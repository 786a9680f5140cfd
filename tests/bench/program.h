#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "ept/fault_engine.h"
#include "tests/bench/report.h"

namespace CLI {
class App;
}

// What the programs in this folder that page have in common between their command line and their exit status.
namespace splitvisor::bench {

/// What they are told alike, as it was given.
struct CommonFlags {
    std::string memory = "128M";
    std::string excache = "25%";
    std::string mechanism = "auto";
    bool quick = false;
    bool json = false;
};

/// Adds the options of `flags`, and those that are numbers. `quick` says what --quick means.
void add_common_options(CLI::App& app, CommonFlags& flags, ept::EngineOptions& engine, std::uint32_t& runs,
                        std::uint64_t& seed, const std::string& quick);

/// Puts what the flags say into the engine's options.
[[nodiscard]] Status settle(const CommonFlags& flags, ept::EngineOptions& engine);

/// The flags' part of Report::settings.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> settings_of(const CommonFlags& flags,
                                                                           const ept::EngineOptions& engine);

/// Hears progress: a line on standard error.
[[nodiscard]] std::function<void(const std::string&)> tell_as(std::string_view program);

/// Prints the report, or what went wrong, and returns the exit status: 0 where all was measured and every result right.
[[nodiscard]] int finish(std::string_view program, const Result<Report>& report, bool json);

}  // namespace splitvisor::bench
