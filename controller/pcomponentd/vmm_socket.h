#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace splitvisor::controller {

/// Connects to a Unix stream socket.
Result<Fd> connect_unix(const std::string& path);

/// Sends one line to a VMM's control socket and returns the line it answers.
Result<std::string> ask_vmm(const std::string& socket_path, const std::string& command_json, std::uint64_t deadline_ms);

}  // namespace splitvisor::controller
