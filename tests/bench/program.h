#pragma once

#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "tests/bench/report.h"

// What the programs in this folder have in common between their command line and their exit status.
namespace splitvisor::bench {

/// "auto", "move" or "write-protect".
[[nodiscard]] Result<ept::Mechanism> parse_mechanism(std::string_view text);

/// The local part of a memory: a size, or a percentage from "1%" to "100%".
[[nodiscard]] Result<ByteCount> parse_excache(std::string_view text, ByteCount memory);

/// Prints the report, or what went wrong, and returns the exit status: 0 where all was measured and every result right.
[[nodiscard]] int finish(std::string_view program, const Result<Report>& report, bool json);

}  // namespace splitvisor::bench
