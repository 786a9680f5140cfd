#include <sys/un.h>

#include <limits>

#include "base/text.h"
#include "fabric/connection.h"

namespace splitvisor::fabric {

namespace {

constexpr std::string_view kTcpPrefix = "tcp:";
constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::string_view kShmPrefix = "shm:";
constexpr std::string_view kRdmaPrefix = "rdma:";
/// RFC 1035 section 2.3.4.
constexpr std::size_t kMaxHostBytes = 253;

Error wrong(std::string_view text, std::string_view why)
{
    return Error{ErrorCode::kInvalid, "endpoint '" + std::string{text} + "': " + std::string{why}};
}

Result<Endpoint> parse_path(Endpoint::Scheme scheme, std::string_view text, std::string_view path)
{
    if (path.empty() || path.front() != '/')
        return wrong(text, "a unix or shm endpoint needs an absolute path");
    if (path.size() >= sizeof sockaddr_un{}.sun_path) return wrong(text, "the path is longer than 107 bytes");
    if (path.find('\0') != path.npos) return wrong(text, "the path holds a zero byte");
    return Endpoint{scheme, std::string{path}, 0};
}

/// HOST:PORT, where an IPv6 address stands in brackets.
Result<Endpoint> parse_address(Endpoint::Scheme scheme, std::string_view text, std::string_view address)
{
    const auto colon = address.rfind(':');
    if (colon == address.npos) {
        return wrong(text, "write tcp:HOST:PORT, rdma:HOST:PORT, unix:/path or shm:/path");
    }
    auto host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) {
        host = host.substr(1, host.size() - 2);
    } else if (host.find(':') != host.npos) {
        return wrong(text, "an IPv6 address stands in brackets");
    }
    if (host.empty() || host.size() > kMaxHostBytes) return wrong(text, "the host is missing or too long");
    if (host.find_first_of("[]/ \t\n") != host.npos || host.find('\0') != host.npos) {
        return wrong(text, "the host holds a character that no host has");
    }
    const auto port = parse_number(address.substr(colon + 1));
    if (!port || *port > std::numeric_limits<std::uint16_t>::max())
        return wrong(text, "the port is not 0 to 65535");
    return Endpoint{scheme, std::string{host}, static_cast<std::uint16_t>(*port)};
}

}  // namespace

Result<Endpoint> Endpoint::parse(std::string_view text)
{
    if (text.starts_with(kUnixPrefix)) return parse_path(Scheme::kUnix, text, text.substr(kUnixPrefix.size()));
    if (text.starts_with(kShmPrefix)) return parse_path(Scheme::kShm, text, text.substr(kShmPrefix.size()));
    if (text.starts_with(kRdmaPrefix))
        return parse_address(Scheme::kRdma, text, text.substr(kRdmaPrefix.size()));
    if (text.starts_with(kTcpPrefix))
        return parse_address(Scheme::kTcp, text, text.substr(kTcpPrefix.size()));
    return parse_address(Scheme::kTcp, text, text);
}

std::string Endpoint::to_string() const
{
    if (scheme == Scheme::kUnix) return std::string{kUnixPrefix} + host;
    if (scheme == Scheme::kShm) return std::string{kShmPrefix} + host;
    const bool bracketed = host.find(':') != host.npos;
    const auto prefix = scheme == Scheme::kRdma ? kRdmaPrefix : kTcpPrefix;
    return std::string{prefix} + (bracketed ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace splitvisor::fabric
