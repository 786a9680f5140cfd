#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>

#include "base/clock.h"

namespace splitvisor {

static spdlog::level::level_enum level_of(LogLevel level)
{
    switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    }
    return spdlog::level::info;
}

void start_log(std::string_view process, LogLevel level)
{
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    auto logger = std::make_shared<spdlog::logger>(std::string{process}, std::move(sink));
    logger->set_level(level_of(level));
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n[%P] %v", spdlog::pattern_time_type::utc);
    logger->flush_on(spdlog::level::debug);
    spdlog::set_default_logger(std::move(logger));
}

void log(LogLevel level, std::string_view event, std::string_view fields)
{
    spdlog::log(level_of(level), "{}{}", event, fields);
}

static bool is_plain(std::string_view value)
{
    for (const char c : value) {
        if (c <= ' ' || c > '~' || c == '"' || c == '\\' || c == '=') return false;
    }
    return !value.empty();
}

std::string field(std::string_view key, std::string_view value)
{
    std::string text = " " + std::string{key} + "=";
    if (is_plain(value)) return text.append(value);
    text += '"';
    for (const char c : value) {
        if (c == '"' || c == '\\') {
            text += '\\';
            text += c;
        } else if (c >= ' ' && c <= '~') {
            text += c;
        } else {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned char>(c));
            text += escaped;
        }
    }
    return text + '"';
}

std::string field(std::string_view key, std::uint64_t value)
{
    return " " + std::string{key} + "=" + std::to_string(value);
}

std::string field(std::string_view key, const Error& error)
{
    return field(key, std::string_view{error.message()});
}

bool LogLimit::allow()
{
    constexpr std::uint64_t kWindowMs = 5000;
    constexpr std::uint32_t kEventsPerWindow = 10;
    const auto now = now_ms();
    if (now - window_start_ms_ >= kWindowMs) {
        window_start_ms_ = now;
        count_ = 0;
    }
    return ++count_ <= kEventsPerWindow;
}

void check_failed(const char* file, int line, const char* condition)
{
    std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
    std::abort();
}

}  // namespace splitvisor
