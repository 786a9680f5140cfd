#include "remote-mem/service.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/units.h"

namespace splitvisor::remote_mem {

namespace {

/// A peer that has shown no capability yet is sent away after so many wrong requests.
constexpr int kMaxWrongRequests = 8;

struct Shape {
    std::uint32_t max_pages;
    std::size_t entry_bytes;
    std::size_t data_bytes;  ///< for each page
};

Result<Shape> shape_of(std::uint16_t kind)
{
    switch (static_cast<Request>(kind)) {
    case Request::kCheck: return Shape{0, 0, 0};
    case Request::kRead: return Shape{kMaxRequestPages, sizeof(std::uint32_t), 0};
    case Request::kWrite: return Shape{kMaxRequestPages, sizeof(WriteEntry), kPageBytes};
    case Request::kDrop: return Shape{kMaxDropPages, sizeof(DropEntry), 0};
    }
    return Error{ErrorCode::kUnsupported, "no request has this number"};
}

}  // namespace

Result<Service::Parsed> Service::parse(const fabric::Incoming& incoming)
{
    const auto shape = shape_of(incoming.kind);
    if (!shape) return shape.error();
    if (incoming.head.size() < sizeof(RequestHeader))
        return Error{ErrorCode::kInvalid, "the head is too short"};
    const auto header = load<RequestHeader>(incoming.head);
    const auto entries = incoming.head.subspan(sizeof header);
    if (header.page_count > shape->max_pages)
        return Error{ErrorCode::kInvalid, "too many pages in one request"};
    if (entries.size() != header.page_count * shape->entry_bytes) {
        return Error{ErrorCode::kInvalid, "the head does not hold what its page count says"};
    }
    if (incoming.data_bytes != header.page_count * shape->data_bytes) {
        return Error{ErrorCode::kInvalid, "the data does not hold what the page count says"};
    }
    return Parsed{static_cast<Request>(incoming.kind),
                  {RegionId{header.region}, header.capability, Epoch{header.epoch}},
                  header.page_count,
                  incoming.data_bytes,
                  entries};
}

Error Service::serve(int admission_ms)
{
    const auto deadline_ms = now_ms() + static_cast<std::uint64_t>(admission_ms);
    int wrong_requests = 0;
    while (true) {
        const auto now = now_ms();
        const auto left = static_cast<int>(std::max(deadline_ms, now) - now);
        const auto incoming = connection_.receive(admitted_ ? -1 : left);
        if (!incoming) return incoming.error();
        const auto answered = answer(*incoming);
        if (!answered) return answered.error();
        if (!admitted_ && ++wrong_requests >= kMaxWrongRequests) {
            return Error{ErrorCode::kDenied, "no request was allowed"};
        }
    }
}

Status Service::answer(const fabric::Incoming& incoming)
{
    const auto request = parse(incoming);
    // The right to ask comes first: nobody else's data is taken in.
    const auto allowed = request ? store_.check(request->access) : Status{request.error()};
    if (!allowed) {
        SPLITVISOR_TRY(connection_.skip_data());
        return refuse(incoming, allowed.error());
    }
    admitted_ = true;
    return answer_allowed(incoming, *request);
}

Status Service::answer_allowed(const fabric::Incoming& incoming, const Parsed& request)
{
    if (request.kind == Request::kWrite || request.kind == Request::kDrop) {
        // Out of the head, whose alignment is the buffer's.
        write_entries_.resize(request.page_count);
        if (request.page_count > 0) {
            std::memcpy(write_entries_.data(), request.entries.data(), request.entries.size());
        }
    }
    switch (request.kind) {
    case Request::kCheck: return reply_update(incoming, 0u);
    case Request::kRead: return answer_read(incoming, request);
    case Request::kWrite: return answer_write(incoming, request);
    case Request::kDrop: return reply_update(incoming, store_.drop(request.access, write_entries_));
    }
    return refuse(incoming, Error{ErrorCode::kUnsupported, "no request has this number"});
}

Status Service::answer_read(const fabric::Incoming& incoming, const Parsed& request)
{
    const auto count = request.page_count;
    if (pages_.size() < count * kPageBytes) pages_.resize(count * kPageBytes);
    if (count > 0) std::memcpy(indices_.data(), request.entries.data(), request.entries.size());
    const auto entries = std::span{read_entries_}.first(count);
    const auto copied = store_.read(request.access, std::span{indices_}.first(count), entries, pages_);
    if (!copied) return refuse(incoming, copied.error());
    const iovec data{pages_.data(), *copied * kPageBytes};
    return connection_.send({.kind = incoming.kind,
                             .request_id = incoming.request_id,
                             .head = std::as_bytes(entries),
                             .data = {&data, 1}});
}

Status Service::answer_write(const fabric::Incoming& incoming, const Parsed& request)
{
    // The pages are taken in before they are stored: what does not arrive whole and unharmed changes nothing.
    if (pages_.size() < request.data_bytes) pages_.resize(request.data_bytes);
    const iovec data{pages_.data(), request.data_bytes};
    SPLITVISOR_TRY(connection_.receive_data({&data, 1}));
    const auto pages = std::span{pages_}.first(request.data_bytes);
    return reply_update(incoming, store_.write(request.access, write_entries_, pages));
}

Status Service::reply_update(const fabric::Incoming& incoming, const Result<std::uint32_t>& stale)
{
    if (!stale) return refuse(incoming, stale.error());
    const UpdateReply reply{*stale, 0};
    return connection_.send(
        {.kind = incoming.kind, .request_id = incoming.request_id, .head = bytes_of(reply), .data = {}});
}

Status Service::refuse(const fabric::Incoming& incoming, const Error& error)
{
    if (refusal_log_.allow()) {
        log_warning("request refused", field("peer", connection_.peer()) + field("reason", error));
    }
    std::string text = error.message().substr(0, kMaxErrorBytes);
    const iovec data{text.data(), text.size()};
    return connection_.send({.kind = incoming.kind,
                             .status = status_of(error.code()),
                             .request_id = incoming.request_id,
                             .head = {},
                             .data = {&data, 1}});
}

}  // namespace splitvisor::remote_mem
