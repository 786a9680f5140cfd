#pragma once

#include <sys/uio.h>

#include <boost/test/unit_test.hpp>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "fabric/connection.h"
#include "vstore/protocol.h"
#include "vstore/volume_record.h"

namespace splitvisor::vstore {

/// Speaks the storage protocol by hand, also wrongly.
class RawClient {
  public:
    struct Reply {
        std::uint16_t kind = 0;
        std::uint16_t status = 0;
        std::uint64_t request_id = 0;
        std::vector<std::byte> head;
        std::vector<std::byte> data;
    };

    RawClient(const fabric::Endpoint& endpoint, const VolumeRecord& record, SessionKey session)
    {
        auto connection = fabric::connect(endpoint, 5000);
        BOOST_REQUIRE(connection.ok());
        connection_ = std::move(*connection);
        head_.volume = record.id.value();
        head_.epoch = record.epoch.value();
        head_.capability = record.capability;
        head_.session = session;
    }

    RequestHead& head() { return head_; }
    fabric::Connection& connection() { return *connection_; }

    Status send_bytes(std::uint16_t kind, std::uint64_t id, std::span<const std::byte> head,
                      std::span<const std::byte> data = {})
    {
        const iovec vector{const_cast<std::byte*>(data.data()), data.size()};
        return connection_->send({.kind = kind,
                                  .status = 0,
                                  .request_id = id,
                                  .head = head,
                                  .data = {&vector, data.empty() ? 0u : 1u}});
    }
    Status send(RequestKind kind, std::uint64_t id, std::uint64_t offset = 0, std::uint64_t length = 0,
                std::span<const std::byte> data = {})
    {
        auto head = head_;
        head.offset = offset;
        head.length = length;
        return send_bytes(static_cast<std::uint16_t>(kind), id, bytes_of(head), data);
    }
    Result<Reply> receive(int timeout_ms = 20'000)
    {
        const auto incoming = connection_->receive(timeout_ms);
        if (!incoming) return incoming.error();
        Reply reply{incoming->kind, incoming->status, incoming->request_id,
                    {incoming->head.begin(), incoming->head.end()}, std::vector<std::byte>(incoming->data_bytes)};
        const iovec into{reply.data.data(), reply.data.size()};
        SPLITVISOR_TRY(connection_->receive_data({&into, reply.data.empty() ? 0u : 1u}));
        return reply;
    }
    /// The status of the reply as a Status; kUnavailable where the connection ends instead.
    Status ask(RequestKind kind, std::uint64_t offset = 0, std::uint64_t length = 0,
               std::span<const std::byte> data = {})
    {
        SPLITVISOR_TRY(send(kind, 1, offset, length, data));
        auto reply = receive();
        if (!reply) return reply.error();
        if (reply->status == 0) return {};
        return error_of(reply->status, {reinterpret_cast<const char*>(reply->data.data()), reply->data.size()});
    }

  private:
    std::unique_ptr<fabric::Connection> connection_;
    RequestHead head_;
};

}  // namespace splitvisor::vstore
