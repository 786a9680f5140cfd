#include "vstore/flight_table.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "vstore/protocol.h"

namespace splitvisor::vstore {

/// A wire id is a growing number and, in its low bits, the flight's index.
static constexpr std::uint64_t kIndexBits = 8;
static_assert(kMaxInFlight == std::size_t{1} << kIndexBits);

bool changes_data(BlockKind kind)
{
    return kind == BlockKind::kWrite || kind == BlockKind::kDiscard || kind == BlockKind::kWriteZeroes;
}

static bool overlap(const BlockRequest& a, const BlockRequest& b)
{
    return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

static bool carries_data(BlockKind kind)
{
    return kind == BlockKind::kRead || kind == BlockKind::kWrite;
}

FlightTable::FlightTable() : flights_(kMaxInFlight)
{
    for (std::uint32_t i = kMaxInFlight; i > 0; --i) free_.push_back(i - 1);
}

bool FlightTable::overlaps_older(const Flight& flight) const
{
    for (const auto index : changing_) {
        const auto& other = flights_[index];
        if (other.order >= flight.order) return false;
        if (overlap(other.request, flight.request)) return true;
    }
    return false;
}

Flight* FlightTable::admit(BlockRequest& request)
{
    if (free_.empty()) return nullptr;
    const auto index = free_.back();
    free_.pop_back();
    auto& flight = flights_[index];
    flight.request = std::move(request);
    flight.order = next_order_++;
    flight.done_bytes = 0;
    flight.piece_bytes = 0;

    const bool changes = changes_data(flight.request.kind);
    if (changes && overlaps_older(flight)) {
        flight.state = Flight::State::kHeld;
        ++held_;
    } else {
        flight.state = Flight::State::kQueued;
        queue_.push_back(index);
    }
    if (changes) changing_.push_back(index);
    return &flight;
}

Flight* FlightTable::take_queued()
{
    if (queue_.empty()) return nullptr;
    const auto index = queue_.front();
    queue_.pop_front();
    auto& flight = flights_[index];
    SPLITVISOR_CHECK(flight.state == Flight::State::kQueued);
    flight.state = Flight::State::kSending;
    flight.wire_id = (next_wire_++ << kIndexBits) | index;
    const auto left = flight.request.length - flight.done_bytes;
    flight.piece_bytes =
        carries_data(flight.request.kind) ? std::min<std::uint64_t>(left, kMaxRequestBytes) : left;
    return &flight;
}

void FlightTable::put_back(Flight& flight)
{
    SPLITVISOR_CHECK(flight.state == Flight::State::kSending);
    flight.state = Flight::State::kQueued;
    queue_.push_front(static_cast<std::uint32_t>(&flight - flights_.data()));
}

Flight* FlightTable::find_sent(std::uint64_t wire_id)
{
    auto& flight = flights_[wire_id % kMaxInFlight];
    return flight.state == Flight::State::kSent && flight.wire_id == wire_id ? &flight : nullptr;
}

bool FlightTable::finish_piece(Flight& flight)
{
    SPLITVISOR_CHECK(flight.state == Flight::State::kSent);
    flight.done_bytes += flight.piece_bytes;
    if (flight.done_bytes == flight.request.length) return true;
    flight.state = Flight::State::kQueued;
    queue_.push_back(static_cast<std::uint32_t>(&flight - flights_.data()));
    return false;
}

void FlightTable::queue_released()
{
    for (const auto index : changing_) {
        auto& flight = flights_[index];
        if (flight.state != Flight::State::kHeld || overlaps_older(flight)) continue;
        flight.state = Flight::State::kQueued;
        queue_.push_back(index);
        --held_;
    }
}

BlockRequest FlightTable::remove(Flight& flight)
{
    SPLITVISOR_CHECK(flight.state == Flight::State::kSent);
    const auto index = static_cast<std::uint32_t>(&flight - flights_.data());
    flight.state = Flight::State::kFree;
    free_.push_back(index);
    if (changes_data(flight.request.kind)) {
        std::erase(changing_, index);
        if (held_ > 0) queue_released();
    }
    return std::exchange(flight.request, {});
}

void FlightTable::requeue_sent()
{
    std::vector<std::uint32_t> sent;
    for (std::uint32_t index = 0; index < kMaxInFlight; ++index) {
        if (flights_[index].state == Flight::State::kSent) sent.push_back(index);
    }
    std::ranges::sort(sent, {}, [&](std::uint32_t index) { return flights_[index].order; });
    for (const auto index : sent) flights_[index].state = Flight::State::kQueued;
    queue_.insert(queue_.begin(), sent.begin(), sent.end());
}

std::vector<BlockRequest> FlightTable::remove_all()
{
    std::vector<BlockRequest> requests;
    for (std::uint32_t index = 0; index < kMaxInFlight; ++index) {
        auto& flight = flights_[index];
        if (flight.state == Flight::State::kFree) continue;
        SPLITVISOR_CHECK(flight.state != Flight::State::kSending);
        flight.state = Flight::State::kFree;
        free_.push_back(index);
        requests.push_back(std::exchange(flight.request, {}));
    }
    queue_.clear();
    changing_.clear();
    held_ = 0;
    return requests;
}

}  // namespace splitvisor::vstore
