#pragma once

#include <functional>

#include "base/fd.h"
#include "base/result.h"
#include "controller/wire/agent.h"

namespace CLI {
class App;
}

namespace splitvisor::wire {

// What the main of every monitor does in the same way.

/// The main of a monitor. `app` has the name of the program and the options that are the monitor's own; those of all are added
/// here, and reach `serve` as the name, controller and token of its agent. The exit status: 0 after an ending signal, 2 where
/// the command line is wrong or `serve` says kInvalid, else 1; why is one line on standard error.
int monitor_main(CLI::App& app, int argc, char** argv, const std::function<Status(AgentOptions)>& serve);

/// Makes SIGTERM and SIGINT readable instead of deadly, and SIGPIPE harmless. Before any thread is started.
Result<Fd> take_ending_signals();

/// True once an ending signal has come, within the time given (-1: for ever).
[[nodiscard]] bool has_signal(const Fd& signals, int timeout_ms);

/// As many descriptors as the system allows: each connection takes some.
void raise_descriptor_limit();

/// Enrols, however long the controller is away, and stays enrolled until an ending signal comes: the data
/// path is served meanwhile all the same. `enrolled` is told of the agent, and of null before it goes.
/// An error where the controller refuses.
Status stay_enrolled(const AgentOptions& options, const Fd& signals,
                     const std::function<void(Agent*)>& enrolled = [](Agent*) {});

}  // namespace splitvisor::wire
