#include "vstore/protocol.h"

#include <sodium/utils.h>

#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"

namespace splitvisor::vstore {

bool same_capability(const Capability& a, const Capability& b)
{
    return ::sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

bool changes_data(RequestKind kind)
{
    return kind == RequestKind::kWrite || kind == RequestKind::kDiscard || kind == RequestKind::kWriteZeroes;
}

static Error invalid(std::string_view why)
{
    return Error{ErrorCode::kInvalid, std::string{why}};
}

static Status check_range_fields(const Request& request, std::size_t data_bytes)
{
    const auto& head = request.head;
    const bool has_range = request.kind == RequestKind::kRead || changes_data(request.kind);
    if (!has_range && (head.offset != 0 || head.length != 0))
        return invalid("a range where none is expected");
    if (has_range && head.length == 0) return invalid("an empty range");
    if (head.offset % kBlockAlignment != 0 || head.length % kBlockAlignment != 0)
        return invalid("a misaligned range");

    const bool moves_bytes = request.kind == RequestKind::kRead || request.kind == RequestKind::kWrite;
    if (moves_bytes && head.length > kMaxRequestBytes)
        return invalid("more bytes than one request may carry");
    const std::uint64_t expected = request.kind == RequestKind::kWrite ? head.length : 0;
    if (data_bytes != expected) return invalid("the data's length differs from the range's");
    return {};
}

Result<Request> parse_request(std::uint16_t kind, std::span<const std::byte> head, std::size_t data_bytes)
{
    if (kind < static_cast<std::uint16_t>(RequestKind::kOpen) ||
        kind > static_cast<std::uint16_t>(RequestKind::kWriteZeroes)) {
        return invalid("unknown request kind " + std::to_string(kind));
    }
    if (head.size() != sizeof(RequestHead)) return invalid("a request head of the wrong length");

    const Request request{static_cast<RequestKind>(kind), load<RequestHead>(head)};
    const std::uint32_t known_flags = request.kind == RequestKind::kOpen ? kFlagReadOnly : 0;
    if ((request.head.flags & ~known_flags) != 0 || request.head.reserved != 0)
        return invalid("unknown flags");
    SPLITVISOR_TRY(check_range_fields(request, data_bytes));
    return request;
}

Status check_bounds(std::uint64_t offset, std::uint64_t length, ByteCount size)
{
    if (offset % kBlockAlignment != 0 || length % kBlockAlignment != 0) return invalid("a misaligned range");
    const auto end = checked_add(offset, length);
    if (!end || *end > size.value()) return invalid("a range that leaves the volume");
    return {};
}

Error error_of(std::uint16_t status, std::string text)
{
    if (status == 0 || status > status_of(ErrorCode::kIo)) {
        return Error{ErrorCode::kCorrupt, "unknown status " + std::to_string(status)};
    }
    return Error{static_cast<ErrorCode>(status - 1), std::move(text)};
}

}  // namespace splitvisor::vstore
