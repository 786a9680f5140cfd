#include "tests/bench/stream_server.h"

#include "base/bytes.h"
#include "base/mapping.h"
#include "base/thread.h"
#include "tests/bench/paged_memory.h"

namespace splitvisor::bench {
namespace {

constexpr std::size_t kStreamBytes = kStreamPages * kPageBytes;
/// Requests are a few bytes: what is on its way never fills both directions.
constexpr int kAhead = 4;
constexpr int kDeadlineMs = 10'000;
constexpr std::uint16_t kKind = 1;

Status answer(fabric::Connection& connection, std::span<const std::byte> memory)
{
    const auto request = connection.receive(-1);
    if (!request) return request.error();
    if (request->head.size() != sizeof(std::uint32_t)) return Error{ErrorCode::kInvalid, "a strange request"};
    const Line first{load<std::uint32_t>(request->head)};
    if (first.byte_offset() + kStreamBytes > memory.size()) return Error{ErrorCode::kInvalid, "no such pages"};
    // send() does not write through iov_base; the type cannot say so.
    const iovec data{const_cast<std::byte*>(memory.data()) + first.byte_offset(), kStreamBytes};
    return connection.send({.kind = kKind, .request_id = request->request_id, .head = {}, .data = {&data, 1}});
}

void serve(fabric::Listener& listener, ByteCount size)
{
    const auto memory = Mapping::anonymous(size);
    if (!memory) return;
    stamp_all(memory->bytes());
    std::vector<Thread> threads;
    while (auto accepted = listener.accept()) {
        threads.emplace_back("stream", [bytes = memory->bytes(), raw = accepted->release()] {
            const std::unique_ptr<fabric::Connection> connection{raw};
            while (answer(*connection, bytes)) {
            }
        });
    }
}

}  // namespace

Result<StreamServer> StreamServer::start(ByteCount memory)
{
    auto listener = fabric::listen({.scheme = fabric::Endpoint::Scheme::kTcp, .host = "127.0.0.1", .port = 0});
    if (!listener) return listener.error();
    auto process = ChildProcess::start([&] { serve(**listener, memory); });
    if (!process) return process.error();
    return StreamServer{std::move(*process), (*listener)->endpoint()};
}

StreamClient::StreamClient(std::unique_ptr<fabric::Connection> connection, ByteCount memory)
    : connection_{std::move(connection)},
      lines_{static_cast<std::uint32_t>(memory.value() / kStreamBytes) * kStreamPages},
      pages_(kStreamBytes)
{
}

Result<std::unique_ptr<StreamClient>> StreamClient::connect(const StreamServer& server, ByteCount memory)
{
    auto connection = fabric::connect(server.endpoint(), kDeadlineMs);
    if (!connection) return connection.error();
    auto client = std::unique_ptr<StreamClient>{new StreamClient{std::move(*connection), memory}};
    for (int i = 0; i < kAhead; ++i) SPLITVISOR_TRY(client->ask());
    return client;
}

Status StreamClient::ask()
{
    const std::uint32_t first = asked_;
    asked_ = (asked_ + kStreamPages) % lines_;
    return connection_->send({.kind = kKind, .request_id = first, .head = bytes_of(first), .data = {}});
}

Result<StreamClient::Batch> StreamClient::next()
{
    const auto reply = connection_->receive(kDeadlineMs);
    if (!reply) return reply.error();
    if (reply->data_bytes != kStreamBytes) return Error{ErrorCode::kCorrupt, "a strange reply"};
    const iovec into{pages_.data(), kStreamBytes};
    SPLITVISOR_TRY(connection_->receive_data({&into, 1}));
    SPLITVISOR_TRY(ask());
    const Line first{received_};
    received_ = (received_ + kStreamPages) % lines_;
    return Batch{first, pages_.data()};
}

}  // namespace splitvisor::bench
