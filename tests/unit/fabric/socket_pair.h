#pragma once

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <ostream>
#include <thread>
#include <vector>

#include "base/log.h"
#include "fabric/shm_connection.h"
#include "fabric/stream_connection.h"

namespace splitvisor::fabric {

inline std::array<Fd, 2> socket_pair()
{
    std::array<int, 2> ends{};
    SPLITVISOR_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    return {Fd{ends[0]}, Fd{ends[1]}};
}

struct ConnectionPair {
    std::unique_ptr<Connection> a;
    std::unique_ptr<Connection> b;
};

enum class Transport { kStream, kShm };
inline constexpr std::array kTransports{Transport::kStream, Transport::kShm};
inline std::ostream& operator<<(std::ostream& out, Transport transport)
{
    return out << (transport == Transport::kShm ? "shm" : "stream");
}

/// The memory of one connection, mapped twice as in two processes.
inline std::array<Mapping, 2> shared_layout()
{
    const Fd memory{::memfd_create("test", MFD_CLOEXEC)};
    SPLITVISOR_CHECK(::ftruncate(memory.get(), sizeof(ShmLayout)) == 0);
    const auto map = [&] {
        return std::move(Mapping::shared(memory.get(), ByteCount{sizeof(ShmLayout)}, 0)).value();
    };
    return {map(), map()};
}

/// Connected through the endpoint that SPLITVISOR_TEST_ENDPOINT names (port 0), where it is set: the same tests
/// then show another transport.
inline const char* test_endpoint()
{
    return std::getenv("SPLITVISOR_TEST_ENDPOINT");
}

inline ConnectionPair connected_through(const Endpoint& endpoint, int message_limit_ms)
{
    auto door = std::move(listen(endpoint, message_limit_ms)).value();
    ConnectionPair pair;
    std::thread server{[&] { pair.b = std::move(door->accept()).value(); }};
    pair.a = std::move(connect(door->endpoint(), 10'000, message_limit_ms)).value();
    server.join();
    return pair;
}

inline ConnectionPair connection_pair(Transport transport, int message_limit_ms = 5'000)
{
    if (const char* endpoint = test_endpoint(); endpoint != nullptr) {
        return connected_through(Endpoint::parse(endpoint).value(), message_limit_ms);
    }
    auto ends = socket_pair();
    if (transport == Transport::kShm) {
        auto memory = shared_layout();
        return {std::make_unique<ShmConnection>(std::move(ends[0]), std::move(memory[0]),
                                                ShmConnection::Side::kConnecting, "a", message_limit_ms),
                std::make_unique<ShmConnection>(std::move(ends[1]), std::move(memory[1]),
                                                ShmConnection::Side::kListening, "b", message_limit_ms)};
    }
    return {std::make_unique<StreamConnection>(std::move(ends[0]), "a", message_limit_ms),
            std::make_unique<StreamConnection>(std::move(ends[1]), "b", message_limit_ms)};
}

inline std::vector<std::byte> pattern(std::size_t size, std::uint32_t seed = 1)
{
    std::vector<std::byte> bytes(size);
    for (auto& byte : bytes) {
        seed = seed * 1664525u + 1013904223u;
        byte = static_cast<std::byte>(seed >> 24);
    }
    return bytes;
}

inline iovec vector_over(std::vector<std::byte>& bytes)
{
    return {bytes.data(), bytes.size()};
}

/// The bytes of one whole frame, as a peer would send it.
inline std::vector<std::byte> frame_of(const std::vector<std::byte>& head, const std::vector<std::byte>& data)
{
    FrameHeader header{.magic = kFrameMagic,
                       .kind = 7,
                       .status = 0,
                       .request_id = 42,
                       .head_bytes = static_cast<std::uint32_t>(head.size()),
                       .data_bytes = static_cast<std::uint32_t>(data.size()),
                       .data_crc = crc32c(data),
                       .head_crc = 0};
    header.head_crc = head_crc_of(header, head);
    std::vector<std::byte> frame(sizeof header + head.size() + data.size());
    store(std::span{frame}, 0, header);
    std::ranges::copy(head, frame.begin() + sizeof header);
    std::ranges::copy(data, frame.end() - static_cast<std::ptrdiff_t>(data.size()));
    return frame;
}

}  // namespace splitvisor::fabric
