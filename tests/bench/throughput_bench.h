#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "tests/bench/report.h"

namespace splitvisor::bench {

struct ThroughputOptions {
    /// The memory is a multiple of 256 KiB.
    ept::EngineOptions engine{.memory = ByteCount{128 * kMiB}, .excache = ByteCount{32 * kMiB}};
    std::uint32_t threads = 1;  ///< that touch, or receive
    std::uint32_t runs = 5;
    std::uint64_t run_ms = 1'000;
    std::uint64_t seed = 1;
};

/// Pages a second, by plain threads of this process: more is better, and so is a larger ratio. Each run is beside one of
/// the baseline, and each page is compared whole, on both sides at the same cost.
/// `throughput.seq.tcp.textbook`     every thread reads its part of the memory in sequence, over and over
/// `throughput.random.tcp.textbook`  every thread reads pages at random; those that are local count too, on both sides
/// `throughput.seq.tcp.stream`       beside ours of the first row, replies of 64 pages over bare fabric connections, one a
///                                   thread, with requests sent ahead
/// `throughput.zerofill.local`       the first write of every page of a fresh memory that is all local, against anonymous
///                                   memory of 4 KiB pages; content is compared after the time is taken
/// Not thread-safe.
class ThroughputBench {
  public:
    ThroughputBench(const ThroughputOptions& options, std::function<void(const std::string&)> progress);
    [[nodiscard]] Result<std::vector<Row>> run();

  private:
    [[nodiscard]] Status measure_tcp(std::vector<Row>& rows);
    [[nodiscard]] Status measure_zero_fill(std::vector<Row>& rows);

    const ThroughputOptions& options_;
    std::function<void(const std::string&)> progress_;
};

}  // namespace splitvisor::bench
