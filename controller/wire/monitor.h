#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "controller/wire/agent.h"

namespace splitvisor::wire {

// What the main of every monitor does in the same way.

/// The enrolment token in a file, without the white space around it.
Result<std::string> read_token(const std::string& path);

/// Makes SIGTERM and SIGINT readable instead of deadly, and SIGPIPE harmless. Before any thread is started.
Result<Fd> take_ending_signals();

/// True once an ending signal has come, within the time given (-1: for ever).
[[nodiscard]] bool has_signal(const Fd& signals, int timeout_ms);

/// As many descriptors as the system allows: each connection takes some.
void raise_descriptor_limit();

/// Enrols, however long the controller is away, and stays enrolled until an ending signal comes: the data
/// path is served meanwhile all the same. An error where the controller refuses.
Status stay_enrolled(const AgentOptions& options, const Fd& signals);

}  // namespace splitvisor::wire
