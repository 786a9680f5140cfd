#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace splitvisor::controller {

struct Entry {
    std::string key;
    std::string value;
    std::uint64_t revision = 0;  ///< of the commit that wrote it; larger is newer, never 0
};

/// What must still hold for a commit to happen.
struct Guard {
    std::string key;
    std::uint64_t revision = 0;  ///< 0: the key must not exist
};

struct Change {
    std::string key;
    std::optional<std::string> value;  ///< nothing: the key is deleted
};

/// The controller's memory: keys with values, changed by transactions that are durable when commit() returns.
/// Thread-safe.
class MetaStore {
  public:
    virtual ~MetaStore() = default;
    [[nodiscard]] virtual Result<std::optional<Entry>> get(std::string_view key) = 0;
    /// All entries whose key begins with the prefix, by key.
    [[nodiscard]] virtual Result<std::vector<Entry>> range(std::string_view prefix) = 0;
    /// All changes or none. kStale: a guard does not hold.
    [[nodiscard]] virtual Status commit(std::span<const Guard> guards, std::span<const Change> changes) = 0;
};

/// A MetaStore in an SQLite file (WAL, synchronous=FULL), created where it does not exist and brought up to this
/// build's schema. kUnsupported: the file comes from a newer build.
Result<std::unique_ptr<MetaStore>> open_sqlite_store(const std::string& path);

}  // namespace splitvisor::controller
