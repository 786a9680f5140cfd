#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "controller/components/registry.h"
#include "controller/console/console_broker.h"

namespace splitvisor::controller {

/// The gRPC listener that components attach to; a translator between the wire and the registry.
class ControlServer {
  public:
    virtual ~ControlServer() = default;  ///< ends all connections
    /// The port listened on: a requested 0 was replaced.
    [[nodiscard]] virtual std::uint16_t port() const = 0;
};

/// `address` is HOST:PORT.
Result<std::unique_ptr<ControlServer>> start_control_server(const std::string& address, ComponentRegistry& registry,
                                                            ConsoleBroker& consoles);

}  // namespace splitvisor::controller
