#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "ept/fault_engine.h"
#include "vmm/config.h"

namespace splitvisor::vmm {

/// The memory behind a vNode's RAM.
class GuestRam {
  public:
    virtual ~GuestRam() = default;

    /// All of it, ordered by Line.
    [[nodiscard]] virtual std::span<std::byte> bytes() const = 0;
    /// These lines read as zero from now on. Any thread.
    virtual void forget(Line first, std::uint32_t count) = 0;
    void forget_all() { forget(Line{0}, static_cast<std::uint32_t>(bytes().size() >> kPageShift)); }
    /// Nothing where there is no fault engine. Any thread.
    [[nodiscard]] virtual std::optional<ept::EngineStats> stats() const = 0;
};

/// Plain memory of this process, for debugging a machine without the rest of the cluster.
Result<std::unique_ptr<GuestRam>> make_local_ram(const Config& config);

/// Connects to the mComponents and starts the fault engine. `on_fatal` as in ept::FaultEngine::start.
Result<std::unique_ptr<GuestRam>> make_remote_ram(const Config& config, std::function<void(const Error&)> on_fatal);

}  // namespace splitvisor::vmm
