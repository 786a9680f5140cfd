#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "tests/bench/backing.h"
#include "tests/bench/report.h"
#include "tests/bench/textbook_pager.h"

namespace splitvisor::bench {

/// How pages travel in a row, and what ours is compared with there.
struct Transport {
    std::string_view name;
    BackingKind backing;
    PlainKind textbook;
    std::span<const PlainKind> floors;  ///< the quickest of these counts
};
[[nodiscard]] std::span<const Transport> transports();
[[nodiscard]] Result<Transport> find_transport(std::string_view name);

struct FaultOptions {
    std::vector<Transport> transports;
    ept::EngineOptions engine{.memory = ByteCount{128 * kMiB}, .excache = ByteCount{32 * kMiB}};
    std::uint32_t runs = 9;
    std::uint32_t faults = 2000;  ///< of each run of each side
    std::uint64_t seed = 1;
    std::uint64_t run_ms = 2'000;  ///< a run ends then, however few faults it saw
};

/// How long one touch of an absent page takes, at random places, one touch after the other from one thread of this process.
/// Two rows a transport, in microseconds, each run beside one of the baseline:
/// `fault.T.textbook`: the same touches under the textbook pager.
/// `fault.T.floor`: what no pager can do without. For each page one bare round trip (a 16-byte request, a 4 KiB reply, no
/// checksum; over tcp once with both ends polling before they sleep, as fabric/ does, and once with both asleep, of which the
/// quicker one counts in each run), UFFDIO_COPY by the same thread, and the touch of the page that is there now. There is no fault in it, and no other thread in this process to wake. `fault.T.floor` has no KVM exit
/// in it either, because the touches come from a plain thread.
/// Not thread-safe.
class FaultBench {
  public:
    FaultBench(const FaultOptions& options, std::function<void(const std::string&)> progress);
    [[nodiscard]] Result<std::vector<Row>> run();

  private:
    [[nodiscard]] Status measure(const Transport& transport, std::vector<Row>& rows);

    const FaultOptions& options_;
    std::function<void(const std::string&)> progress_;
};

}  // namespace splitvisor::bench
