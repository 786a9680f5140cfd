#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "remote-mem/page_store.h"

namespace splitvisor::bench {

/// Monotonic; pages unless the name says otherwise.
struct PagingCounters {
    std::uint64_t remote_faults = 0;  ///< faults that fetched from elsewhere; counted before the page is there
    std::uint64_t fetched = 0;
    std::uint64_t written_back = 0;
    std::uint64_t room_stalls = 0;    ///< faults that had to wait for room
};

/// Memory of which a part is local and the rest elsewhere: ours, or a pager to compare with. Any thread may touch the
/// memory. A failure ends this process with a message and status 1: who touches lost memory can't be told otherwise.
class PagedMemory {
  public:
    virtual ~PagedMemory() = default;  ///< nobody may touch the memory any more
    [[nodiscard]] virtual std::span<std::byte> memory() const = 0;
    [[nodiscard]] virtual PagingCounters counters() const = 0;
};

/// Ours: a fault engine over a store.
[[nodiscard]] Result<std::unique_ptr<PagedMemory>> make_engine_memory(const ept::EngineOptions& options,
                                                                      std::unique_ptr<remote_mem::PageStore> store);

/// Ends the process as described above.
[[noreturn]] void end_for_lost_memory(const Error& error);

// Content that tells whether a page is the right one, whole.
void stamp_page(std::byte* page, Line line);
[[nodiscard]] bool is_stamped(const std::byte* page, Line line);

/// Writes every page of the memory in sequence.
void stamp_all(std::span<std::byte> memory);

/// splitmix64 (Steele, Lea and Flood, 2014): pages at random, the same ones for all who are compared.
class PageDice {
  public:
    explicit PageDice(std::uint64_t seed) : state_{seed} {}
    [[nodiscard]] Line throw_among(std::uint32_t lines);

  private:
    std::uint64_t state_;
};

}  // namespace splitvisor::bench
