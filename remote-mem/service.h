#pragma once

#include <array>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "fabric/connection.h"
#include "remote-mem/store.h"

namespace splitvisor::remote_mem {

/// Answers the requests of one connection. Used by one thread. Its buffers grow to the largest request that
/// was allowed so far: a peer that has no capability makes it allocate nothing.
class Service {
  public:
    Service(RegionStore& store, fabric::Connection& connection) : store_{store}, connection_{connection} {}

    /// Serves until the connection ends, and says why it did. A peer has `admission_ms` for its first allowed
    /// request.
    [[nodiscard]] Error serve(int admission_ms);

  private:
    /// A request whose head has been taken apart; the entries still stand in it.
    struct Parsed {
        Request kind{};
        Access access;
        std::uint32_t page_count = 0;
        std::size_t data_bytes = 0;
        std::span<const std::byte> entries;
    };

    [[nodiscard]] static Result<Parsed> parse(const fabric::Incoming& incoming);
    /// An error here is the connection's: it cannot go on. What is wrong with a request is answered to the
    /// peer.
    [[nodiscard]] Status answer(const fabric::Incoming& incoming);
    [[nodiscard]] Status answer_allowed(const fabric::Incoming& incoming, const Parsed& request);
    [[nodiscard]] Status answer_read(const fabric::Incoming& incoming, const Parsed& request);
    [[nodiscard]] Status answer_write(const fabric::Incoming& incoming, const Parsed& request);
    [[nodiscard]] Status reply_update(const fabric::Incoming& incoming, const Result<std::uint32_t>& stale);
    [[nodiscard]] Status refuse(const fabric::Incoming& incoming, const Error& error);

    RegionStore& store_;
    fabric::Connection& connection_;
    bool admitted_ = false;
    std::vector<std::byte> pages_;
    std::array<std::uint32_t, kMaxRequestPages> indices_{};
    std::array<ReadEntry, kMaxRequestPages> read_entries_{};
    std::vector<WriteEntry> write_entries_;
    LogLimit refusal_log_;
};

}  // namespace splitvisor::remote_mem
