#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/units.h"

namespace splitvisor::controller {

struct ControllerOptions {
    std::string state_dir;  ///< created where it does not exist; one controller at a time
    std::string listen_address = "127.0.0.1";
    std::uint16_t listen_port = 7770;                 ///< REST; 0: the kernel chooses
    std::string listen_control = "127.0.0.1:7771";    ///< gRPC
    ByteCount region_size{kGiB};
    std::uint64_t heartbeat_limit_ms = 5000;
};

/// The whole controller. Running vNodes do not notice when it goes.
class Controller {
  public:
    static Result<std::unique_ptr<Controller>> start(const ControllerOptions& options);
    virtual ~Controller() = default;  ///< ends all connections and waits for the requests under way
    [[nodiscard]] virtual std::uint16_t rest_port() const = 0;
    [[nodiscard]] virtual std::uint16_t control_port() const = 0;
};

}  // namespace splitvisor::controller
