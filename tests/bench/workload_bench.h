#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "ept/fault_engine.h"
#include "guests/ring3/catalogue.h"
#include "guests/ring3/verifier.h"
#include "tests/bench/backing.h"
#include "tests/bench/report.h"

namespace splitvisor::bench {

struct WorkloadOptions {
    std::vector<ring3::Workload> workloads;
    ept::EngineOptions engine{.memory = ByteCount{128 * kMiB}, .excache = ByteCount{32 * kMiB}};
    std::uint32_t vcpus = 1;
    BackingKind backing = BackingKind::kTcp;
    std::uint32_t runs = 3;
    bool huge_baseline = false;  ///< the baseline's memory asks for transparent huge pages
    std::uint64_t seed = 1;
    std::uint64_t deadline_ms = 120'000;  ///< for one run of one guest
};

/// Runs each workload with the fault engine and, beside each such run, with all memory local. Not thread-safe.
class WorkloadBench {
  public:
    /// `backing` is null for BackingKind::kLocal. `progress` hears one line a workload.
    WorkloadBench(const WorkloadOptions& options, Backing* backing, std::function<void(const std::string&)> progress);

    /// A row for each workload. An error where anything could not run; a wrong result is no error but a row that is
    /// not verified, and the reason goes to `progress`.
    [[nodiscard]] Result<std::vector<Row>> run();

  private:
    /// One run of one guest.
    struct Run {
        double prepare_seconds = 0;
        double work_seconds = 0;
        Status verdict;   ///< what the verifier says
        Figures figures;  ///< of the fault engine, while the guest worked
    };
    struct Task {
        const ring3::Workload& workload;
        const ring3::Parameters& parameters;
        const ring3::Verifier& verifier;
    };

    [[nodiscard]] Result<Row> measure(const ring3::Workload& workload);
    [[nodiscard]] Result<Run> run_remote(const Task& task);
    [[nodiscard]] Result<Run> run_local(const Task& task, bool huge);
    [[nodiscard]] bool is_right(const Run& run, const ring3::Workload& workload, const char* side) const;

    const WorkloadOptions& options_;
    Backing* backing_;
    std::function<void(const std::string&)> progress_;
};

}  // namespace splitvisor::bench
