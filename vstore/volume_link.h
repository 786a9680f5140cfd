#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "fabric/connection.h"
#include "vstore/protocol.h"

namespace splitvisor::vstore {

/// What a client needs to know to use a volume.
struct VolumeAddress {
    fabric::Endpoint endpoint;
    VolumeId volume{};
    Capability capability{};
    Epoch epoch{};
    bool read_only = false;
};

/// The head of a request for the volume, still without a range.
[[nodiscard]] RequestHead head_for(const VolumeAddress& address, const SessionKey& session);

struct VolumeLink {
    std::shared_ptr<fabric::Connection> connection;
    IdentityHead identity;
};

/// Connects and opens a session. kUnavailable: it may work later, whatever the reason. Other errors are the
/// monitor's refusal. `opening` is told the connection before the monitor is asked, so that another thread
/// can shut it down; a false answer ends the attempt.
Result<VolumeLink> open_link(const VolumeAddress& address, const SessionKey& session,
                             const std::function<bool(std::shared_ptr<fabric::Connection>)>& opening);

/// The text of a failed reply, whose data is still to be fetched.
Result<std::string> receive_text(fabric::Connection& connection, const fabric::Incoming& incoming);

/// True for refusals that trying again will not change: the volume is not, or no longer, ours.
[[nodiscard]] bool is_loss(ErrorCode code);

}  // namespace splitvisor::vstore
