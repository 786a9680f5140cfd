#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "fabric/connection.h"
#include "tests/bench/child_process.h"

namespace splitvisor::bench {

/// Pages in a reply of the stream: as many as one read of the fault engine brings at most.
inline constexpr std::uint32_t kStreamPages = 64;

/// A process that answers requests for runs of stamped pages over the fabric, without any store behind it: what the
/// transport itself can do.
class StreamServer {
  public:
    /// Forks: the caller has no other thread yet.
    static Result<StreamServer> start(ByteCount memory);
    [[nodiscard]] const fabric::Endpoint& endpoint() const { return endpoint_; }

  private:
    StreamServer(ChildProcess process, fabric::Endpoint endpoint)
        : process_{std::move(process)}, endpoint_{std::move(endpoint)}
    {
    }
    ChildProcess process_;
    fabric::Endpoint endpoint_;
};

/// One connection to it, with requests sent ahead so that the server never waits. Not thread-safe.
class StreamClient {
  public:
    static Result<std::unique_ptr<StreamClient>> connect(const StreamServer& server, ByteCount memory);
    /// The next pages in sequence, from the first again after the last.
    struct Batch {
        Line first;
        const std::byte* pages;  ///< kStreamPages of them, until the next call
    };
    [[nodiscard]] Result<Batch> next();

  private:
    StreamClient(std::unique_ptr<fabric::Connection> connection, ByteCount memory);
    [[nodiscard]] Status ask();

    std::unique_ptr<fabric::Connection> connection_;
    std::uint32_t lines_;
    std::uint32_t asked_ = 0;
    std::uint32_t received_ = 0;
    std::vector<std::byte> pages_;
};

}  // namespace splitvisor::bench
