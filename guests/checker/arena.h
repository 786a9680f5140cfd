#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "checker/ledger.h"
#include "checker/pattern.h"
#include "checker/report.h"

namespace splitvisor::checker {

/// The memory under test and the ledger of what it should hold. All members may be called from any thread: a
/// group's lock is held while its pages and its ledger block are worked on, also across the ledger's I/O,
/// because a page and its entry must change together.
class Arena {
  public:
    struct Parts {
        const Pattern& pattern;
        Report& report;
        Ledger& ledger;
    };

    /// Fresh memory: every page is expected to be zeros. `huge` asks the kernel for 2 MiB pages.
    static Result<Arena> create(Parts parts, std::uint64_t groups, bool huge);

    /// Writes the next version of every page of the group; looks at every second page before.
    [[nodiscard]] Status rewrite_group(GroupIndex group, Random& random);
    [[nodiscard]] Status verify_group(GroupIndex group);
    /// Verifies random pages of the group and writes the next version of most of them.
    [[nodiscard]] Status touch_group(GroupIndex group, Random& random);

    [[nodiscard]] std::uint64_t groups() const { return groups_; }
    [[nodiscard]] std::uint64_t pages() const { return groups_ * kPagesPerGroup; }

  private:
    Arena(Parts parts, std::uint64_t groups, Mapping memory);

    [[nodiscard]] PageWords words(PageIndex page) const;
    void verify(PageIndex page, const Entry& entry);
    void rewrite(PageIndex page, Entry& entry, Random& random);

    Parts parts_;
    std::uint64_t groups_;
    Mapping memory_;
    std::vector<std::mutex> locks_;
};

}  // namespace splitvisor::checker
