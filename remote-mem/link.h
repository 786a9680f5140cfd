#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "fabric/connection.h"
#include "remote-mem/placement.h"
#include "remote-mem/protocol.h"

namespace splitvisor::remote_mem {

/// A session's connection to one mComponent, made anew after it broke. Used by one thread.
///
/// Requests are answered in the order in which they were sent; the caller receives a reply for each, or the
/// link fails. A failed link has no request under way any more: the late answer to one that was given up
/// arrives nowhere.
class Link {
  public:
    Link(const Placement::Component& component, int patience_ms, Placement::Counters& counters)
        : component_{component}, patience_ms_{patience_ms}, counters_{counters}
    {
    }

    [[nodiscard]] bool connected() const { return connection_ != nullptr; }
    /// Changes when the link fails: what was sent before is not answered any more.
    [[nodiscard]] std::uint64_t generation() const { return generation_; }
    /// When the next attempt to connect, or after back_off() to send, is worth while.
    [[nodiscard]] std::uint64_t ready_at_ms() const { return ready_at_ms_; }
    [[nodiscard]] bool ready(std::uint64_t now) const { return ready_at_ms_ <= now; }

    /// Connects unless connected. On failure the link has failed.
    [[nodiscard]] Status connect(int timeout_ms);

    /// On failure the link has failed.
    [[nodiscard]] Status send(Request kind, std::span<const std::byte> head, std::span<const iovec> data);
    /// The reply to the oldest request without one. On failure, also for a reply that does not belong to the
    /// request, the link has failed.
    [[nodiscard]] Result<fabric::Incoming> receive(std::uint64_t deadline_ms);
    [[nodiscard]] Status receive_data(std::span<const iovec> into);
    /// Takes the text of a reply with a status, the mComponent's name before it. On failure the link has
    /// failed.
    [[nodiscard]] Result<std::string> receive_text(const fabric::Incoming& reply);

    /// The mComponent answered well: the next failure starts with a short pause again.
    void succeeded() { pause_ms_ = 0; }
    /// The mComponent works but cannot serve the request now.
    void back_off();
    /// Closes the connection.
    void fail();
    /// fail(), for a peer that does not keep to the protocol.
    Error fail_because(std::string_view why);

  private:
    const Placement::Component& component_;
    const int patience_ms_;
    Placement::Counters& counters_;
    std::unique_ptr<fabric::Connection> connection_;
    std::uint64_t last_sent_id_ = 0;
    std::uint64_t last_received_id_ = 0;
    Request expected_kind_{};  ///< of all requests under way: a session does one thing at a time
    std::uint64_t generation_ = 0;
    std::uint64_t ready_at_ms_ = 0;
    std::uint64_t pause_ms_ = 0;
};

}  // namespace splitvisor::remote_mem
