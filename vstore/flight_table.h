#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/result.h"
#include "vstore/block_backend.h"

namespace splitvisor::vstore {

/// One request of the VMM's from submit() until it is done.
struct Flight {
    enum class State {
        kFree,
        kHeld,     ///< waits for an older change of overlapping bytes
        kQueued,   ///< waits to be sent
        kSending,  ///< the sender reads its buffers
        kSent,     ///< waits for the reply
    };
    State state = State::kFree;
    BlockRequest request;
    std::uint64_t wire_id = 0;     ///< of the piece that was sent last
    std::uint64_t order = 0;       ///< grows with each submission
    std::uint64_t done_bytes = 0;  ///< of pieces that are acknowledged
    std::uint64_t piece_bytes = 0;
    std::uint64_t flush_mark = 0;  ///< the owner's
};

/// The requests in flight of one volume, and the rule that keeps their order safe across connections: a
/// change that overlaps an older one still in flight is held until that one is done. So when requests are
/// sent anew after an outage, none can undo a newer one that was acknowledged. Knows no network and no
/// threads: its owner locks.
class FlightTable {
  public:
    FlightTable();

    /// Takes a checked request in, as kQueued or kHeld. Null where kMaxInFlight are in flight; the request is
    /// then untouched.
    Flight* admit(BlockRequest& request);

    /// The next flight to send, in the order of submission, now kSending with a new wire id and piece.
    Flight* take_queued();
    [[nodiscard]] bool has_queued() const { return !queue_.empty(); }

    /// kSending -> kQueued, first in line: the connection went away before it was sent.
    void put_back(Flight& flight);

    /// The flight that was kSent under this wire id.
    [[nodiscard]] Flight* find_sent(std::uint64_t wire_id);

    /// The piece is acknowledged. True where that was the last; otherwise the flight is kQueued for its next
    /// piece.
    [[nodiscard]] bool finish_piece(Flight& flight);

    /// Ends a flight and queues what was held for it.
    BlockRequest remove(Flight& flight);

    /// All kSent flights become kQueued, in the order of their submission and before all others.
    void requeue_sent();

    /// Ends every flight. None is kSending.
    std::vector<BlockRequest> remove_all();

    [[nodiscard]] std::size_t size() const { return kMaxInFlight - free_.size(); }

  private:
    [[nodiscard]] bool overlaps_older(const Flight& flight) const;
    void queue_released();

    std::vector<Flight> flights_;
    std::vector<std::uint32_t> free_;
    std::deque<std::uint32_t> queue_;
    std::vector<std::uint32_t> changing_;  ///< flights that change data, in the order of submission
    std::size_t held_ = 0;
    std::uint64_t next_order_ = 0;
    std::uint64_t next_wire_ = 1;
};

[[nodiscard]] bool changes_data(BlockKind kind);

}  // namespace splitvisor::vstore
