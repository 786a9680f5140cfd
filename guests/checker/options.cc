#include "checker/options.h"

#include <array>
#include <charconv>
#include <string_view>
#include <utility>

namespace splitvisor::checker {

namespace {

constexpr std::array kModes{Mode::kFill, Mode::kRandom, Mode::kAtomic, Mode::kFork, Mode::kMap};
constexpr std::uint64_t kMostMib = 1 << 20;
constexpr std::uint64_t kMostThreads = 256;

Error invalid(std::string_view option, std::string_view wanted, std::string_view text)
{
    return Error{ErrorCode::kInvalid,
                 std::string{option} + " wants " + std::string{wanted} + ", got '" + std::string{text} + "'"};
}

Result<std::uint64_t> number(std::string_view option, std::string_view text, std::uint64_t least,
                             std::uint64_t most)
{
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) {
        return invalid(option, "a number from " + std::to_string(least) + " to " + std::to_string(most),
                       text);
    }
    return value;
}

Result<std::vector<Mode>> modes(std::string_view text)
{
    std::vector<Mode> chosen;
    std::string_view rest = text;
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find_first_of(",+"), rest.size());
        const std::string_view name = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        const std::size_t before = chosen.size();
        for (const Mode mode : kModes) {
            if (name == "all" || name == to_string(mode)) chosen.push_back(mode);
        }
        if (chosen.size() == before) return invalid("--mode", "fill, random, atomic, fork, map or all", text);
    }
    if (chosen.empty()) return invalid("--mode", "at least one mode", text);
    return chosen;
}

Status set(Options& options, std::string_view option, std::string_view text)
{
    const auto assign = [&](auto& target, std::uint64_t least, std::uint64_t most) -> Status {
        auto value = number(option, text, least, most);
        if (!value) return value.error();
        target = static_cast<std::remove_reference_t<decltype(target)>>(*value);
        return {};
    };
    if (option == "--mib") return assign(options.mib, 1, kMostMib);
    if (option == "--threads") return assign(options.threads, 1, kMostThreads);
    if (option == "--rounds") return assign(options.rounds, 1, UINT64_MAX);
    if (option == "--seconds") return assign(options.seconds, 1, UINT32_MAX);
    if (option == "--seed") return assign(options.seed, 0, UINT64_MAX);
    if (option == "--ledger") {
        options.ledger = text;
        return {};
    }
    if (option == "--mode") {
        auto chosen = modes(text);
        if (!chosen) return chosen.error();
        options.modes = std::move(*chosen);
        return {};
    }
    return Error{ErrorCode::kInvalid, "unknown option '" + std::string{option} + "', see --help"};
}

}  // namespace

const char* to_string(Mode mode)
{
    switch (mode) {
    case Mode::kFill: return "fill";
    case Mode::kRandom: return "random";
    case Mode::kAtomic: return "atomic";
    case Mode::kFork: return "fork";
    case Mode::kMap: return "map";
    }
    __builtin_unreachable();
}

Result<Options> parse_options(std::span<char* const> arguments)
{
    Options options;
    options.modes.assign(kModes.begin(), kModes.end());
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string_view option = arguments[i];
        if (option == "--help") {
            options.help = true;
        } else if (option == "--huge") {
            options.huge = true;
        } else if (i + 1 == arguments.size()) {
            return Error{ErrorCode::kInvalid,
                         "'" + std::string{option} + "' is unknown or lacks its value, see --help"};
        } else if (auto done = set(options, option, arguments[++i]); !done) {
            return done.error();
        }
    }
    return options;
}

}  // namespace splitvisor::checker
