#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace splitvisor::wire {

/// Raised with each change of control.proto that an older peer would misunderstand.
inline constexpr std::uint32_t kProtocolVersion = 1;

/// Text from outside as protobuf's strings demand it: what is not UTF-8 becomes '?'.
[[nodiscard]] std::string to_utf8(std::string_view text);

}  // namespace splitvisor::wire
