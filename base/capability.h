#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "base/result.h"

namespace splitvisor {

/// The secret that allows a vNode to use one vRegion or volume. Made by the controller.
using Capability = std::array<std::byte, 16>;

/// Parses 32 hexadecimal digits. The error does not repeat them.
Result<Capability> parse_capability(std::string_view text);

}  // namespace splitvisor
