#include "base/text.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>

#include "base/checked.h"
#include "base/fd.h"

namespace splitvisor {

Result<std::uint64_t> parse_number(std::string_view text)
{
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size()) {
        return Error{ErrorCode::kInvalid, "'" + std::string{text} + "' is not a whole number"};
    }
    return number;
}

Result<ByteCount> parse_size(std::string_view text)
{
    const Error wrong{ErrorCode::kInvalid,
                      "'" + std::string{text} + "' is not a size; write for example 4096, 64K, 512M or 2G"};
    const auto digits = text.substr(0, text.find_first_not_of("0123456789"));
    auto suffix = text.substr(digits.size());
    const auto number = parse_number(digits);
    if (!number) return wrong;
    if (suffix.ends_with("iB")) {
        suffix.remove_suffix(2);
        if (suffix.empty()) return wrong;
    } else if (suffix.ends_with('B')) {
        suffix.remove_suffix(1);
    }
    std::uint64_t unit = 1;
    if (!suffix.empty()) {
        constexpr std::string_view kUnits = "KMGT";
        const auto index = kUnits.find(suffix);
        if (suffix.size() != 1 || index == std::string_view::npos) return wrong;
        unit = std::uint64_t{1} << (10 * (index + 1));
    }
    const auto bytes = checked_mul(*number, unit);
    if (!bytes) return wrong;
    return ByteCount{*bytes};
}

std::string format_size(ByteCount size)
{
    constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
    auto amount = static_cast<double>(size.value());
    std::size_t unit = 0;
    while (amount >= 1024 && unit + 1 < kUnits.size()) {
        amount /= 1024;
        ++unit;
    }
    char text[32];
    const bool whole = amount == static_cast<double>(static_cast<std::uint64_t>(amount));
    std::snprintf(text, sizeof text, whole ? "%.0f %s" : "%.1f %s", amount, kUnits[unit]);
    return text;
}

std::string to_hex(std::string_view bytes)
{
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

Result<std::string> from_hex(std::string_view text)
{
    const Error wrong{ErrorCode::kInvalid, "not a hexadecimal string"};
    if (text.size() % 2 != 0) return wrong;
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); i += 2) {
        unsigned byte = 0;
        const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, byte, 16);
        if (error != std::errc{} || end != text.data() + i + 2) return wrong;
        bytes += static_cast<char>(byte);
    }
    return bytes;
}

bool is_valid_name(std::string_view name)
{
    if (name.empty() || name.size() > 63) return false;
    if (name.front() < 'a' || name.front() > 'z' || name.back() == '-') return false;
    return name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

Result<std::string> read_file(const std::string& path, ByteCount limit)
{
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!fd.valid()) return Error::from_errno(path);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return Error::from_errno(path);
    if (S_ISDIR(info.st_mode)) return Error{ErrorCode::kInvalid, path + ": is a directory"};
    std::string content;
    std::array<char, 65536> chunk;
    while (true) {
        const auto count = ::read(fd.get(), chunk.data(), chunk.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return Error::from_errno(path);
        if (count == 0) return content;
        content.append(chunk.data(), static_cast<std::size_t>(count));
        if (content.size() > limit.value()) {
            return Error{ErrorCode::kInvalid, path + ": larger than " + format_size(limit)};
        }
    }
}

}  // namespace splitvisor
