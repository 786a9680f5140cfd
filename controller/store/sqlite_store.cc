#include <sqlite3.h>

#include <array>
#include <mutex>
#include <utility>

#include "base/checked.h"
#include "controller/store/meta_store.h"

namespace splitvisor::controller {

namespace {

/// Each entry takes the schema one version up; PRAGMA user_version counts those applied. Entries are never changed.
constexpr std::array kMigrations = {
    "CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO counters VALUES ('revision', 0);",
};

struct CloseDatabase {
    void operator()(sqlite3* database) const { ::sqlite3_close_v2(database); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;

Error database_error(sqlite3* database, std::string_view what)
{
    const int code = ::sqlite3_errcode(database);
    const bool is_corrupt = code == SQLITE_NOTADB || code == SQLITE_CORRUPT;
    return {is_corrupt ? ErrorCode::kCorrupt : ErrorCode::kIo,
            "state database: " + std::string{what} + ": " + ::sqlite3_errmsg(database)};
}

/// A prepared statement with its bindings, for one execution.
class Statement {
  public:
    Statement(sqlite3* database, std::string_view sql) : database_{database}
    {
        prepared_ = ::sqlite3_prepare_v2(database, sql.data(), narrow<int>(sql.size()), &statement_, nullptr);
    }
    ~Statement() { ::sqlite3_finalize(statement_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;

    Statement& bind(std::string_view text)
    {
        if (prepared_ != SQLITE_OK) return *this;
        ::sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
        return *this;
    }
    Statement& bind(std::uint64_t number)
    {
        if (prepared_ != SQLITE_OK) return *this;
        ::sqlite3_bind_int64(statement_, ++bound_, static_cast<sqlite3_int64>(number));
        return *this;
    }

    /// True where there is a row.
    Result<bool> step()
    {
        const int outcome = prepared_ == SQLITE_OK ? ::sqlite3_step(statement_) : prepared_;
        if (outcome == SQLITE_ROW) return true;
        if (outcome == SQLITE_DONE) return false;
        return database_error(database_, "statement");
    }

    [[nodiscard]] std::string text(int column) const
    {
        const auto* bytes = reinterpret_cast<const char*>(::sqlite3_column_text(statement_, column));
        return {bytes, narrow<std::size_t>(::sqlite3_column_bytes(statement_, column))};
    }
    [[nodiscard]] std::uint64_t number(int column) const
    {
        return static_cast<std::uint64_t>(::sqlite3_column_int64(statement_, column));
    }

  private:
    sqlite3* database_;
    sqlite3_stmt* statement_ = nullptr;
    int prepared_ = SQLITE_OK;
    int bound_ = 0;
};

Status execute(sqlite3* database, const char* sql)
{
    if (::sqlite3_exec(database, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return database_error(database, sql);
    return {};
}

Status run(Statement& statement)
{
    auto stepped = statement.step();
    if (!stepped) return stepped.error();
    return {};
}

/// Rolls back unless commit() was reached.
class Transaction {
  public:
    explicit Transaction(sqlite3* database) : database_{database} {}
    ~Transaction()
    {
        if (open_) ::sqlite3_exec(database_, "ROLLBACK", nullptr, nullptr, nullptr);
    }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    Status begin()
    {
        SPLITVISOR_TRY(execute(database_, "BEGIN IMMEDIATE"));
        open_ = true;
        return {};
    }
    Status commit()
    {
        SPLITVISOR_TRY(execute(database_, "COMMIT"));
        open_ = false;
        return {};
    }

  private:
    sqlite3* database_;
    bool open_ = false;
};

Status migrate(sqlite3* database)
{
    Statement version_query{database, "PRAGMA user_version"};
    const auto has_version = version_query.step();
    if (!has_version) return has_version.error();
    const std::uint64_t version = version_query.number(0);
    if (version > kMigrations.size()) {
        return Error{ErrorCode::kUnsupported, "state database: it has schema version " + std::to_string(version) +
                                                  ", this build knows up to " + std::to_string(kMigrations.size())};
    }
    for (std::size_t next = version; next < kMigrations.size(); ++next) {
        Transaction transaction{database};
        SPLITVISOR_TRY(transaction.begin());
        SPLITVISOR_TRY(execute(database, kMigrations.at(next)));
        SPLITVISOR_TRY(execute(database, ("PRAGMA user_version = " + std::to_string(next + 1)).c_str()));
        SPLITVISOR_TRY(transaction.commit());
    }
    return {};
}

Status make_ready(sqlite3* database)
{
    SPLITVISOR_TRY(execute(database, "PRAGMA journal_mode = WAL"));
    SPLITVISOR_TRY(execute(database, "PRAGMA synchronous = FULL"));
    return migrate(database);
}

class SqliteStore final : public MetaStore {
  public:
    explicit SqliteStore(Database database) : database_{std::move(database)} {}

    Result<std::optional<Entry>> get(std::string_view key) override
    {
        const std::lock_guard lock{mutex_};
        Statement query{database_.get(), "SELECT key, value, revision FROM entries WHERE key = ?"};
        const auto found = query.bind(key).step();
        if (!found) return found.error();
        if (!*found) return std::optional<Entry>{};
        return std::optional<Entry>{Entry{query.text(0), query.text(1), query.number(2)}};
    }

    Result<std::vector<Entry>> range(std::string_view prefix) override
    {
        const std::lock_guard lock{mutex_};
        // Keys are plain ASCII, so that the byte after the last one ends the range.
        Statement query{database_.get(),
                        "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key"};
        query.bind(prefix).bind(std::string{prefix} + '\x7f');
        std::vector<Entry> entries;
        for (;;) {
            const auto row = query.step();
            if (!row) return row.error();
            if (!*row) return entries;
            entries.push_back({query.text(0), query.text(1), query.number(2)});
        }
    }

    Status commit(std::span<const Guard> guards, std::span<const Change> changes) override
    {
        const std::lock_guard lock{mutex_};
        Transaction transaction{database_.get()};
        SPLITVISOR_TRY(transaction.begin());
        for (const Guard& guard : guards) SPLITVISOR_TRY(check(guard));
        const auto revision = next_revision();
        if (!revision) return revision.error();
        for (const Change& change : changes) SPLITVISOR_TRY(apply(change, *revision));
        return transaction.commit();
    }

  private:
    Status check(const Guard& guard)
    {
        Statement query{database_.get(), "SELECT revision FROM entries WHERE key = ?"};
        const auto found = query.bind(guard.key).step();
        if (!found) return found.error();
        const std::uint64_t revision = *found ? query.number(0) : 0;
        if (revision != guard.revision) return Error{ErrorCode::kStale, "'" + guard.key + "' has changed meanwhile"};
        return {};
    }

    Result<std::uint64_t> next_revision()
    {
        Statement update{database_.get(),
                         "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value"};
        const auto row = update.step();
        if (!row) return row.error();
        if (!*row) return Error{ErrorCode::kCorrupt, "state database: the revision counter is missing"};
        const std::uint64_t revision = update.number(0);
        if (auto done = update.step(); !done) return done.error();
        return revision;
    }

    Status apply(const Change& change, std::uint64_t revision)
    {
        if (!change.value) {
            Statement erase{database_.get(), "DELETE FROM entries WHERE key = ?"};
            return run(erase.bind(change.key));
        }
        Statement put{database_.get(), "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"};
        return run(put.bind(change.key).bind(*change.value).bind(revision));
    }

    std::mutex mutex_;
    const Database database_;
};

}  // namespace

Result<std::unique_ptr<MetaStore>> open_sqlite_store(const std::string& path)
{
    sqlite3* raw = nullptr;
    const int opened =
        ::sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    Database database{raw};
    if (opened != SQLITE_OK) {
        return Error{ErrorCode::kIo, "state database " + path + ": " + ::sqlite3_errstr(opened)};
    }
    ::sqlite3_busy_timeout(raw, 2000);
    if (auto ready = make_ready(raw); !ready) return ready.error().in(path);
    return std::unique_ptr<MetaStore>{std::make_unique<SqliteStore>(std::move(database))};
}

}  // namespace splitvisor::controller
