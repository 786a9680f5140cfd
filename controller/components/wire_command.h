#pragma once

#include <cstdint>

#include "base/result.h"
#include "controller/components/component_hub.h"

namespace splitvisor::wire::proto {
class Command;
}

namespace splitvisor::controller {

/// Writes the command into its wire form; the id and the deadline are the caller's.
void fill_command(const Command& command, wire::proto::Command& message);

/// The ErrorCode of a command result; kIo for a number this build does not know.
[[nodiscard]] ErrorCode error_code_of(std::uint32_t number);

}  // namespace splitvisor::controller
