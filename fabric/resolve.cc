#include "fabric/resolve.h"

#include <string>

namespace splitvisor::fabric {

Result<AddressList> resolve_host(const Endpoint& endpoint, bool passive)
{
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
    addrinfo* found = nullptr;
    const int failed =
        ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
    if (failed != 0) return Error{ErrorCode::kUnavailable, ::gai_strerror(failed)};
    return AddressList{found};
}

}  // namespace splitvisor::fabric
