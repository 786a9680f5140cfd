#pragma once

#include <memory>
#include <string>

#include "fabric/framed_connection.h"

namespace splitvisor::fabric {

class RdmaQueue;

/// Messages over a queue pair. Data is copied once on each side, between the caller's memory and the
/// registered buffers.
class RdmaConnection final : public FramedConnection {
  public:
    RdmaConnection(std::unique_ptr<RdmaQueue> queue, std::string peer, int message_limit_ms);
    ~RdmaConnection() override;
    void shutdown() override;

  private:
    [[nodiscard]] Result<std::size_t> write_some(std::span<iovec> vectors) override;
    [[nodiscard]] Result<std::size_t> read_some(std::span<iovec> into) override;
    [[nodiscard]] bool input_ready() override;
    [[nodiscard]] Status sleep_for_input(std::uint64_t deadline_ms) override;
    [[nodiscard]] Status sleep_for_output(std::uint64_t deadline_ms) override;
    [[nodiscard]] Result<std::size_t> moved_or_broken(std::size_t count);

    const std::unique_ptr<RdmaQueue> queue_;
};

}  // namespace splitvisor::fabric
