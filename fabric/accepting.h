#pragma once

#include <optional>

#include "base/fd.h"
#include "base/result.h"

namespace splitvisor::fabric {

// What the accept loops of the listeners have in common.

/// Waits a moment where memory or descriptors are exhausted, so that an accept loop does not spin; `stop` ends it.
void pause_exhausted(const EventFd& stop);

/// Accepts from a listening socket that is ready. Nothing where the connection went away before it was one.
/// kNoRoom, after a pause: descriptors or memory are exhausted.
Result<std::optional<Fd>> accept_socket(const Fd& listening, const EventFd& stop);

}  // namespace splitvisor::fabric
