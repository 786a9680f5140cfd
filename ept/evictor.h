#pragma once

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "ept/engine_state.h"
#include "ept/withdrawal.h"
#include "excache/eviction_policy.h"
#include "excache/victim_ring.h"
#include "remote-mem/page_store.h"

namespace splitvisor::ept {

/// The thread that keeps lines free ahead of demand. In each round it picks lines, withdraws them into victim slots,
/// tells zero, clean and dirty apart, and writes the dirty ones behind to every replica. A slot is emptied only when the
/// store has acknowledged its content; until then, and as long after as nobody needs the slot, a fault is served from it.
///
/// It is the only writer of this vNode's remote pages, so writes and drops of a line are in order by construction.
class Evictor {
  public:
    Evictor(EngineState& state, Withdrawal& withdrawal, std::unique_ptr<remote_mem::PageSession> session);

    /// Runs until the engine stops.
    void run();

  private:
    static constexpr std::size_t kBatch = excache::LineBudget::kBatch;

    bool torture_round();
    void evict_batch(std::size_t wanted);
    [[nodiscard]] std::optional<Line> choose();
    std::size_t claim_batch(std::size_t wanted);
    void admit_new_lines();
    void settle_oldest_victim();
    void settle(std::uint32_t slot, Line line);
    void assign_slots(std::span<WithdrawnPage> pages);
    void sort_out(std::span<const WithdrawnPage> pages);
    void give_back(const WithdrawnPage& page);
    void release_and_wake(Line line, excache::LineState to);
    void write_back(std::span<const remote_mem::PageWrite> writes);
    void take_drop_wish(Line line);
    void drop_forgotten();
    void send_drops();
    template <typename Call>
    bool repeat_until_done(Call&& call);

    EngineState& state_;
    Withdrawal& withdrawal_;
    std::unique_ptr<remote_mem::PageSession> session_;
    excache::EvictionPolicy policy_;
    excache::VictimRing ring_;
    std::array<WithdrawnPage, kBatch> batch_{};
    std::vector<remote_mem::PageWrite> writes_;
    std::vector<XXH128_hash_t> digests_;  ///< of the pages in writes_
    std::vector<std::uint32_t> write_slots_;  ///< of the pages in writes_
    std::vector<Line> drops_;
    std::uint64_t last_version_ = 0;
    std::minstd_rand random_;
    std::uint64_t torture_until_faults_ = 0;
    std::uint64_t torture_until_ms_ = 0;
};

}  // namespace splitvisor::ept
