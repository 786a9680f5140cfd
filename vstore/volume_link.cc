#include "vstore/volume_link.h"

#include <sys/uio.h>

#include <utility>

#include "base/bytes.h"

namespace splitvisor::vstore {

static constexpr int kConnectPatienceMs = 2000;
/// More than the monitor waits for an older session to end.
static constexpr int kOpenPatienceMs = 12'000;
static constexpr std::size_t kMaxErrorText = 4096;

RequestHead head_for(const VolumeAddress& address, const SessionKey& session)
{
    RequestHead head;
    head.volume = address.volume.value();
    head.epoch = address.epoch.value();
    head.capability = address.capability;
    head.session = session;
    return head;
}

bool is_loss(ErrorCode code)
{
    return code == ErrorCode::kDenied || code == ErrorCode::kStale || code == ErrorCode::kNotFound;
}

Result<std::string> receive_text(fabric::Connection& connection, const fabric::Incoming& incoming)
{
    if (incoming.data_bytes > kMaxErrorText)
        return Error{ErrorCode::kCorrupt, "an error text that is too long"};
    std::string text(incoming.data_bytes, '\0');
    const iovec into{text.data(), text.size()};
    SPLITVISOR_TRY(connection.receive_data({&into, text.empty() ? 0u : 1u}));
    return text;
}

static Error unavailable(const Error& error)
{
    return Error{ErrorCode::kUnavailable, error.message()};
}

static Status ask_to_open(fabric::Connection& connection, const VolumeAddress& address,
                          const SessionKey& session)
{
    auto head = head_for(address, session);
    head.flags = address.read_only ? kFlagReadOnly : 0;
    return connection.send({.kind = static_cast<std::uint16_t>(RequestKind::kOpen),
                            .status = 0,
                            .request_id = 0,
                            .head = bytes_of(head),
                            .data = {}});
}

static Result<IdentityHead> take_identity(fabric::Connection& connection, const fabric::Incoming& incoming)
{
    if (incoming.kind != static_cast<std::uint16_t>(RequestKind::kOpen)) {
        return Error{ErrorCode::kUnavailable, "an answer to something else"};
    }
    if (incoming.status != 0) {
        auto text = receive_text(connection, incoming);
        if (!text) return unavailable(text.error());
        auto refusal = error_of(incoming.status, std::move(*text));
        const bool final_answer = is_loss(refusal.code()) || refusal.code() == ErrorCode::kInvalid ||
                                  refusal.code() == ErrorCode::kUnsupported;
        return final_answer ? refusal : unavailable(refusal);
    }
    if (incoming.head.size() != sizeof(IdentityHead) || incoming.data_bytes != 0) {
        return Error{ErrorCode::kUnavailable, "a malformed answer"};
    }
    return load<IdentityHead>(incoming.head);
}

Result<VolumeLink> open_link(const VolumeAddress& address, const SessionKey& session,
                             const std::function<bool(std::shared_ptr<fabric::Connection>)>& opening)
{
    auto connected = fabric::connect(address.endpoint, kConnectPatienceMs);
    if (!connected) return unavailable(connected.error());
    const std::shared_ptr<fabric::Connection> connection{std::move(*connected)};
    if (!opening(connection)) return Error{ErrorCode::kUnavailable, "given up"};

    const auto where = address.endpoint.to_string();
    if (auto asked = ask_to_open(*connection, address, session); !asked) return unavailable(asked.error());
    const auto incoming = connection->receive(kOpenPatienceMs);
    if (!incoming) return unavailable(incoming.error());
    auto identity = take_identity(*connection, *incoming);
    if (!identity) return identity.error().in(where);
    return VolumeLink{connection, *identity};
}

}  // namespace splitvisor::vstore
