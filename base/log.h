#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace splitvisor {

/// Where and how a process logs. One line an event, `key=value`, to standard error.
enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Call once, first thing in main; `process` is printed on every line.
void start_log(std::string_view process, LogLevel level = LogLevel::kInfo);

/// Thread-safe. `event` is a short fixed phrase, `fields` are further ` key=value` pairs made by `field`.
void log(LogLevel level, std::string_view event, std::string_view fields = {});

inline void log_info(std::string_view event, std::string_view fields = {}) { log(LogLevel::kInfo, event, fields); }
inline void log_warning(std::string_view event, std::string_view fields = {}) { log(LogLevel::kWarning, event, fields); }
inline void log_error(std::string_view event, std::string_view fields = {}) { log(LogLevel::kError, event, fields); }

/// ` key=value`, quoted and escaped where the value holds anything but plain printable characters.
[[nodiscard]] std::string field(std::string_view key, std::string_view value);
[[nodiscard]] std::string field(std::string_view key, std::uint64_t value);
[[nodiscard]] std::string field(std::string_view key, const Error& error);

/// Lets through at most ten events in five seconds; one for each call site that a guest or a peer can drive.
/// Not thread-safe: owned by the thread that logs.
class LogLimit {
  public:
    [[nodiscard]] bool allow();

  private:
    std::uint64_t window_start_ms_ = 0;
    std::uint32_t count_ = 0;
};

/// Prints "file:line: check failed: ..." and aborts. For bugs of ours only.
[[noreturn]] void check_failed(const char* file, int line, const char* condition);

}  // namespace splitvisor

/// True in release builds too. Never reachable from outside bytes.
#define SPLITVISOR_CHECK(condition) \
    ((condition) ? static_cast<void>(0) : ::splitvisor::check_failed(__FILE__, __LINE__, #condition))
