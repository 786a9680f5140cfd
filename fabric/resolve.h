#pragma once

#include <netdb.h>

#include <memory>

#include "base/result.h"
#include "fabric/connection.h"

namespace splitvisor::fabric {

struct AddressDeleter {
    void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
/// Never empty.
using AddressList = std::unique_ptr<addrinfo, AddressDeleter>;

/// What the resolver gives for the endpoint's host and port; `passive`: to listen at.
Result<AddressList> resolve_host(const Endpoint& endpoint, bool passive);

}  // namespace splitvisor::fabric
