#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>

#include "base/fd.h"
#include "base/result.h"
#include "base/units.h"
#include "fabric/connection.h"
#include "remote-mem/page_store.h"
#include "tests/fakes/temporary_directory.h"

namespace splitvisor::bench {

/// A memory monitor's store and data server in a child process, without a controller. It ends with this object, or with this
/// process. Not thread-safe.
class ServerProcess {
  public:
    /// Listens on loopback (kTcp) or in a directory of its own (kShm). Forks: the caller has no other thread yet.
    static Result<ServerProcess> start(ByteCount capacity, fabric::Endpoint::Scheme scheme);
    ServerProcess(ServerProcess&& other) noexcept;
    ServerProcess& operator=(ServerProcess&&) = delete;
    ~ServerProcess();

    [[nodiscard]] const fabric::Endpoint& endpoint() const { return endpoint_; }

    /// With epoch 1.
    [[nodiscard]] Status create_region(RegionId id, ByteCount size, const Capability& capability);
    [[nodiscard]] Status delete_region(RegionId id);

  private:
    enum class Action : std::uint32_t { kCreate, kDelete };
    struct Command {
        Action action;
        std::uint32_t reserved;
        std::uint64_t region;
        std::uint64_t size;
        Capability capability;
    };
    /// The first one comes unasked, when the server listens.
    struct Answer {
        std::uint32_t status;  ///< 0, or 1 + ErrorCode
        std::uint32_t port;
        char message[256];
    };

    ServerProcess(Fd control, ::pid_t pid, std::unique_ptr<fakes::TemporaryDirectory> directory)
        : directory_{std::move(directory)}, control_{std::move(control)}, pid_{pid}
    {
    }
    [[noreturn]] static void serve(Fd control, ByteCount capacity, const fabric::Endpoint& wanted);
    static Answer describe(const Status& status);
    [[nodiscard]] Result<Answer> receive() const;
    [[nodiscard]] Status call(const Command& command) const;

    std::unique_ptr<fakes::TemporaryDirectory> directory_;  ///< of the socket; none for TCP
    Fd control_;
    ::pid_t pid_ = -1;
    fabric::Endpoint endpoint_;
};

}  // namespace splitvisor::bench
