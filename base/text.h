#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"

namespace splitvisor {

/// Parses "4096", "64K", "512M", "2G", "1T" (powers of 1024, optional trailing "iB" or "B").
Result<ByteCount> parse_size(std::string_view text);

/// "512 MiB", "1.5 GiB": for people.
[[nodiscard]] std::string format_size(ByteCount size);

/// Parses a whole decimal number.
Result<std::uint64_t> parse_number(std::string_view text);

/// A capability as it travels in JSON and gRPC: 32 lower-case hexadecimal digits.
[[nodiscard]] std::string to_hex(std::string_view bytes);
Result<std::string> from_hex(std::string_view text);

/// True for names of vNodes, volumes and components: 1 to 63 of [a-z0-9-], starting with a letter, not ending in '-'.
[[nodiscard]] bool is_valid_name(std::string_view name);

Result<std::string> read_file(const std::string& path, ByteCount limit);

}  // namespace splitvisor
