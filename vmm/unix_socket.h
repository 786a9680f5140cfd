#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace splitvisor::vmm {

/// Listens at `path`, which only the own user may connect to; whatever lay there is replaced. Non-blocking.
/// The caller has made sure that no other process serves this path.
Result<Fd> listen_at(const std::string& path);

/// The next waiting client, non-blocking and close-on-exec; an invalid Fd where there is none.
[[nodiscard]] Fd accept_from(const Fd& listener);

}  // namespace splitvisor::vmm
