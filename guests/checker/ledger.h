#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "checker/pattern.h"

namespace splitvisor::checker {

/// 256 pages, whose entries fill one 4 KiB block of the ledger.
using GroupIndex = Tagged<struct GroupIndexTag>;
inline constexpr std::size_t kPagesPerGroup = 256;

/// What one page should hold. The checksum guards the entry itself: a ledger that does not agree with itself
/// must not be taken for a fault of the memory.
struct Entry {
    std::uint64_t version_and_zero = 0;
    std::uint64_t checksum = 0;

    static Entry of(const Pattern& pattern, PageIndex page, Content content);
    [[nodiscard]] Content content() const;
    [[nodiscard]] bool agrees(const Pattern& pattern, PageIndex page) const;
};
static_assert(sizeof(Entry) == 16 && sizeof(Entry) * kPagesPerGroup == kPageBytes);

using GroupEntries = std::array<Entry, kPagesPerGroup>;

/// Keeps what every page should hold. Different groups may be used by different threads at a time.
class Ledger {
  public:
    virtual ~Ledger() = default;

    [[nodiscard]] virtual Status load(GroupIndex group, GroupEntries& entries) = 0;
    [[nodiscard]] virtual Status store(GroupIndex group, const GroupEntries& entries) = 0;

    /// How many updates of a group are worth one load and store.
    [[nodiscard]] virtual std::uint64_t batch() const = 0;
};

/// In the memory that is being tested: quick, and blind to a fault that hits page and entry alike.
std::unique_ptr<Ledger> make_memory_ledger(std::uint64_t groups);

/// On a block device or in a file, past the page cache: the expected state lives outside of what is tested.
Result<std::unique_ptr<Ledger>> open_ledger(const std::string& path, std::uint64_t groups);

}  // namespace splitvisor::checker
