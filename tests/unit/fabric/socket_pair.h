#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "base/log.h"
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

inline ConnectionPair connection_pair(int message_limit_ms = 5'000)
{
    auto ends = socket_pair();
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
