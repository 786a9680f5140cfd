#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "controller/components/component_hub.h"
#include "controller/gpm/placement.h"
#include "controller/model/catalog.h"

namespace splitvisor::controller {

/// The global process manager: which pComponent runs which vNode, and the commands that go there. Thread-safe.
class ProcessManager {
  public:
    explicit ProcessManager(ComponentHub& hub) : hub_{hub} {}

    /// Every pComponent that was ever enrolled, with what the vNodes assigned to it have left. `except` is a vNode that
    /// counts as not placed.
    [[nodiscard]] std::vector<ProcessorOffer> offers(const Contents& contents, const std::string& except) const;

    [[nodiscard]] Status start(const std::string& component, const std::string& vnode, const std::string& spec_json);
    [[nodiscard]] Status stop(const std::string& component, const std::string& vnode, std::uint64_t grace_ms);
    /// Sends one command to the VMM and returns its JSON answer.
    [[nodiscard]] Result<std::string> control(const std::string& component, const std::string& vnode,
                                              const std::string& command_json);
    [[nodiscard]] Status forget(const std::string& component, const std::string& vnode);

  private:
    ComponentHub& hub_;
};

}  // namespace splitvisor::controller
