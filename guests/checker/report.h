#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "checker/pattern.h"

namespace splitvisor::checker {

/// Counts, mismatches and progress of one run. All members may be called from any thread.
class Report {
  public:
    explicit Report(Seed seed);

    void count_written(std::uint64_t pages) { pages_written_ += pages; }
    void count_verified(std::uint64_t pages) { pages_verified_ += pages; }
    /// What a child process found; its own report dies with it.
    void count_child(std::uint64_t verified, std::uint64_t mismatches);

    /// Prints the first few with all that helps to find the cause, and counts all.
    void mismatch(const void* address, PageIndex page, Content expected, const Difference& difference);
    /// A mismatch that is not about a page's pattern.
    void mismatch(std::string_view what);

    /// Names what is going on; printed with the time of every few seconds' tick.
    void begin(const std::string& phase);
    void tick();

    [[nodiscard]] std::uint64_t verified() const { return pages_verified_; }
    [[nodiscard]] std::uint64_t mismatches() const { return mismatches_; }
    [[nodiscard]] double seconds() const;

    /// The one line a test looks for. `error` is empty unless the run could not be done.
    void print_result(std::string_view error) const;

  private:
    bool may_print_mismatch();
    void print_if_due(std::uint64_t early_ns);

    Seed seed_;
    std::uint64_t started_ns_;
    std::atomic<std::uint64_t> pages_written_ = 0;
    std::atomic<std::uint64_t> pages_verified_ = 0;
    std::atomic<std::uint64_t> mismatches_ = 0;
    std::atomic<std::uint64_t> next_tick_ns_;
    std::mutex mutex_;
    std::string phase_;
};

}  // namespace splitvisor::checker
