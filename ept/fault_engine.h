#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "remote-mem/page_store.h"

namespace splitvisor::ept {

/// How a page is taken from the guest without losing a write (ept/README.md).
enum class Mechanism {
    kAuto,          ///< the best that probing finds
    kMove,          ///< UFFDIO_MOVE, Linux 6.8
    kWriteProtect,  ///< write-protect, copy, MADV_DONTNEED; Linux 5.7
};

struct EngineOptions {
    ByteCount memory{};          ///< guest RAM, a multiple of 4 KiB
    ByteCount excache{};         ///< at most `memory`; equal means that nothing is ever evicted
    std::uint32_t handlers = 2;  ///< fault handler threads
    Mechanism mechanism = Mechanism::kAuto;
    bool torture = false;        ///< evict at random all the time, however much room there is (tests)
    std::uint64_t torture_seed = 1;
};

/// Monotonic counters since start, and gauges marked as such. Pages unless the name says otherwise.
struct EngineStats {
    std::uint64_t faults = 0;            ///< fault messages from the kernel
    std::uint64_t remote_faults = 0;     ///< faults that needed a remote read
    std::uint64_t remote_pages = 0;      ///< pages read from mComponents, with those that no fault asked for
    std::uint64_t zero_fills = 0;        ///< pages installed as zero without a message
    std::uint64_t victim_hits = 0;       ///< given back from a victim line
    std::uint64_t ahead_windows = 0;     ///< read ahead of sequences, before any fault
    std::uint64_t ahead_pages = 0;       ///< pages of those
    std::uint64_t ahead_reached = 0;     ///< of the windows, those that the guest came to
    std::uint64_t in_flight_waits = 0;   ///< faults on a page that was on its way already
    std::uint64_t evicted_clean = 0;
    std::uint64_t evicted_zero = 0;
    std::uint64_t written_back = 0;      ///< dirty pages acknowledged by every replica
    std::uint64_t room_stalls = 0;       ///< faults that had to wait for a free line
    std::uint64_t retries = 0;           ///< remote calls repeated because an mComponent did not answer
    std::uint64_t forgotten = 0;         ///< pages the guest gave back
    std::uint64_t resident_lines = 0;    ///< gauge
    std::uint64_t victim_lines = 0;      ///< gauge
    std::uint64_t capacity_lines = 0;    ///< gauge
    std::uint64_t resident_peak = 0;     ///< largest number of lines ever held at once, victims included
    std::uint64_t fault_ns_total = 0;    ///< from a message read to its page installed, summed
    std::string mechanism;               ///< the one in use
    std::string waiting_for;             ///< not empty while a fault can't be served: what it waits for
};

/// Guest RAM of one vNode: a host mapping whose absent pages are brought by handler threads from victim lines or from
/// the page store, and from which an evictor thread withdraws pages to keep within the ExCache.
/// Any thread may touch the mapping, in system calls too; the engine's own threads never do.
class FaultEngine {
  public:
    virtual ~FaultEngine() = default;  ///< no thread may touch the mapping any more

    /// `on_fatal` is called once, by an engine thread, when memory is lost or the VMM is fenced: the guest can't go on.
    /// Errors: kInvalid sizes, kUnsupported kernel (says what is missing), what open_session returns.
    static Result<std::unique_ptr<FaultEngine>> start(const EngineOptions& options, remote_mem::PageStore& store,
                                                      std::function<void(const Error&)> on_fatal);

    /// All of guest RAM, ordered by Line; page-aligned; valid while the engine lives.
    [[nodiscard]] virtual std::span<std::byte> memory() const = 0;

    /// The guest does not need the content of these lines any more (balloon, free page reporting): they read as zero
    /// from now on, here and remotely. Safe against every concurrent touch. Thread-safe.
    virtual void forget(Line first, std::uint32_t count) = 0;

    [[nodiscard]] virtual EngineStats stats() const = 0;
};

}  // namespace splitvisor::ept
