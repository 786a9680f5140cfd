#include "fabric/rdma_connection.h"

#include "fabric/rdma_queue.h"

namespace splitvisor::fabric {

namespace {

/// Header and a usual head; what follows goes straight to where the caller wants it.
constexpr std::size_t kReadAheadBytes = 128;

}  // namespace

RdmaConnection::RdmaConnection(std::unique_ptr<RdmaQueue> queue, std::string peer, int message_limit_ms)
    : FramedConnection{std::move(peer), message_limit_ms, kReadAheadBytes}, queue_{std::move(queue)}
{
}

RdmaConnection::~RdmaConnection() = default;

void RdmaConnection::shutdown()
{
    mark_ended();
    queue_->finish();
}

Result<std::size_t> RdmaConnection::moved_or_broken(std::size_t count)
{
    if (count > 0) return count;
    if (ended()) return broken(ErrorCode::kUnavailable, "");
    if (const auto why = queue_->failure(); !why.empty()) return broken(ErrorCode::kUnavailable, why);
    return std::size_t{0};
}

Result<std::size_t> RdmaConnection::write_some(std::span<iovec> vectors)
{
    return moved_or_broken(queue_->write(vectors));
}

Result<std::size_t> RdmaConnection::read_some(std::span<iovec> into)
{
    if (ended()) return broken(ErrorCode::kUnavailable, "");
    return moved_or_broken(queue_->read(into));
}

bool RdmaConnection::input_ready()
{
    return queue_->input_ready();
}

Status RdmaConnection::sleep_for_input(std::uint64_t deadline_ms)
{
    if (!queue_->wait_for_input(deadline_ms)) return late();
    return {};
}

Status RdmaConnection::sleep_for_output(std::uint64_t deadline_ms)
{
    if (!queue_->wait_for_output(deadline_ms)) return late();
    return {};
}

}  // namespace splitvisor::fabric
