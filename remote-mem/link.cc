#include "remote-mem/link.h"

#include <algorithm>
#include <array>

#include "base/clock.h"

namespace splitvisor::remote_mem {

namespace {

constexpr std::uint64_t kMinPauseMs = 20;
constexpr std::uint64_t kMaxPauseMs = 1'000;
/// Every call tries several times within its patience, however often earlier calls failed.
constexpr std::uint64_t kTriesWithinPatience = 4;

}  // namespace

/// The first pause is none: a connection that broke while idle says nothing about the mComponent.
void Link::back_off()
{
    ready_at_ms_ = now_ms() + pause_ms_;
    const auto longest_ms = std::min(kMaxPauseMs, static_cast<std::uint64_t>(patience_ms_) / kTriesWithinPatience);
    pause_ms_ = std::min(std::max(2 * pause_ms_, kMinPauseMs), longest_ms);
}

void Link::fail()
{
    connection_.reset();
    ++generation_;
    last_received_id_ = last_sent_id_;
    counters_.failures.fetch_add(1, std::memory_order_relaxed);
    back_off();
}

Error Link::fail_because(std::string_view why)
{
    fail();
    return Error{ErrorCode::kUnavailable, component_.name + ": " + std::string{why}};
}

Status Link::connect(int timeout_ms)
{
    if (connected()) return {};
    auto connection = fabric::connect(component_.endpoint, timeout_ms, patience_ms_);
    if (!connection) {
        fail();
        return connection.error().in(component_.name);
    }
    counters_.connects.fetch_add(1, std::memory_order_relaxed);
    connection_ = std::move(*connection);
    return {};
}

Status Link::send(Request kind, std::span<const std::byte> head, std::span<const iovec> data)
{
    counters_.requests.fetch_add(1, std::memory_order_relaxed);
    expected_kind_ = kind;
    const auto sent = connection_->send({.kind = static_cast<std::uint16_t>(kind),
                                         .request_id = ++last_sent_id_,
                                         .head = head,
                                         .data = data});
    if (sent) return {};
    fail();
    return sent.error().in(component_.name);
}

Result<fabric::Incoming> Link::receive(std::uint64_t deadline_ms)
{
    const auto now = now_ms();
    const auto left =
        std::min<std::uint64_t>(std::max(deadline_ms, now) - now, static_cast<std::uint64_t>(patience_ms_));
    auto reply = connection_->receive(static_cast<int>(left));
    if (!reply) {
        fail();
        return reply.error().in(component_.name);
    }
    if (reply->request_id != ++last_received_id_ ||
        reply->kind != static_cast<std::uint16_t>(expected_kind_)) {
        return fail_because("a reply to a request that was not made");
    }
    return reply;
}

Status Link::receive_data(std::span<const iovec> into)
{
    const auto received = connection_->receive_data(into);
    if (received) return {};
    fail();
    return received.error().in(component_.name);
}

Result<std::string> Link::receive_text(const fabric::Incoming& reply)
{
    if (reply.data_bytes > kMaxErrorBytes) return fail_because("an error text that is too long");
    std::array<char, kMaxErrorBytes> text{};
    const iovec into{text.data(), reply.data_bytes};
    SPLITVISOR_TRY(receive_data({&into, 1}));
    return component_.name + ": " + std::string{text.data(), reply.data_bytes};
}

}  // namespace splitvisor::remote_mem
