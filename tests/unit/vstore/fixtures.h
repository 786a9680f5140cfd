#pragma once

#include <sys/uio.h>

#include <boost/test/unit_test.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "fabric/connection.h"
#include "tests/fakes/temporary_directory.h"
#include "vstore/block_backend.h"
#include "vstore/client.h"
#include "vstore/server.h"
#include "vstore/volume_store.h"

namespace splitvisor::vstore {

/// On a real file system, for the tests of durability and of holes.
struct TemporaryDirectory : fakes::TemporaryDirectory {
    explicit TemporaryDirectory(const std::string& parent = "/var/tmp") : fakes::TemporaryDirectory{parent} {}
};

inline Capability capability_of(int seed)
{
    Capability capability;
    for (auto& byte : capability) byte = static_cast<std::byte>(seed++);
    return capability;
}

inline VolumeRecord record_of(std::uint64_t id, std::uint64_t size_bytes, std::uint64_t epoch = 1)
{
    return {.id = VolumeId{id},
            .size = ByteCount{size_bytes},
            .epoch = Epoch{epoch},
            .capability = capability_of(static_cast<int>(id)),
            .image = {}};
}

/// Any thread, unlike what uses Boost.Test's checks.
inline std::unique_ptr<VolumeStore> open_store(const std::string& directory,
                                               ByteCount capacity = ByteCount{kGiB})
{
    auto store = VolumeStore::open({.directory = directory, .capacity = capacity});
    SPLITVISOR_CHECK(store.ok());
    return std::move(*store);
}

inline void require_ok(const Status& status)
{
    BOOST_REQUIRE_MESSAGE(status.ok(), (status.ok() ? "" : status.error().message()));
}

template <typename R>
void check_code(const R& result, ErrorCode expected)
{
    BOOST_REQUIRE(!result.ok());
    BOOST_CHECK_MESSAGE(result.error().code() == expected, to_string(result.error().code())
                                                               << ": " << result.error().message());
}

/// A store and its server on a loopback port that stays the same when the server is started anew, by any
/// thread.
class Monitor {
  public:
    explicit Monitor(const std::string& directory, ServingOptions serving = {})
        : directory_{directory}, serving_{serving}
    {
        start();
    }
    ~Monitor() { stop(); }
    void start()
    {
        store_ = open_store(directory_);
        auto server = Server::start(*store_, endpoint_, serving_);
        SPLITVISOR_CHECK(server.ok());
        server_ = std::move(*server);
        endpoint_ = server_->endpoint();
    }
    void stop()
    {
        server_.reset();
        store_.reset();
    }
    [[nodiscard]] VolumeStore& store() { return *store_; }
    [[nodiscard]] Server& server() { return *server_; }
    [[nodiscard]] const fabric::Endpoint& endpoint() const { return endpoint_; }
    [[nodiscard]] ServingOptions& serving() { return serving_; }

    [[nodiscard]] RemoteVolumeOptions options_for(const VolumeRecord& record) const
    {
        RemoteVolumeOptions options;
        options.name = "test";
        options.endpoint = endpoint_;
        options.volume = record.id;
        options.capability = record.capability;
        options.epoch = record.epoch;
        options.size = record.size;
        return options;
    }

  private:
    std::string directory_;
    ServingOptions serving_;
    fabric::Endpoint endpoint_{.scheme = fabric::Endpoint::Scheme::kTcp, .host = "127.0.0.1", .port = 0};
    std::unique_ptr<VolumeStore> store_;
    std::unique_ptr<Server> server_;
};

inline std::unique_ptr<RemoteVolume> open_remote(RemoteVolumeOptions options)
{
    auto volume = RemoteVolume::open(std::move(options));
    BOOST_REQUIRE_MESSAGE(volume.ok(), (volume.ok() ? "" : volume.error().message()));
    return std::move(*volume);
}

/// One request after the other, for tests.
class SyncDisk {
  public:
    explicit SyncDisk(BlockBackend& disk) : disk_{disk} {}

    [[nodiscard]] Status run(BlockKind kind, std::uint64_t offset, std::uint64_t length,
                             std::span<const iovec> data = {})
    {
        std::promise<Status> promise;
        auto future = promise.get_future();
        disk_.submit({kind, offset, length, data,
                      [&promise](Status status) { promise.set_value(std::move(status)); }});
        BOOST_REQUIRE(future.wait_for(std::chrono::seconds{60}) == std::future_status::ready);
        return future.get();
    }
    [[nodiscard]] Status write(std::uint64_t offset, std::span<const std::byte> bytes)
    {
        const iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
        return run(BlockKind::kWrite, offset, bytes.size(), {&vector, 1});
    }
    [[nodiscard]] Status read(std::uint64_t offset, std::span<std::byte> bytes)
    {
        const iovec vector{bytes.data(), bytes.size()};
        return run(BlockKind::kRead, offset, bytes.size(), {&vector, 1});
    }
    [[nodiscard]] Status flush() { return run(BlockKind::kFlush, 0, 0); }

  private:
    BlockBackend& disk_;
};

inline std::vector<std::byte> pattern(std::size_t size, std::uint64_t seed)
{
    std::vector<std::byte> bytes(size);
    std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (auto& byte : bytes) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        byte = static_cast<std::byte>(state >> 56);
    }
    return bytes;
}

}  // namespace splitvisor::vstore
