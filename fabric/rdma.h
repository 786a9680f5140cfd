#pragma once

#include <memory>

#include "fabric/connection.h"

namespace splitvisor::fabric {

/// connect and listen for rdma:HOST:PORT. A connection is made only once the other side accepts it: unlike a
/// socket's, a listener has no kernel that connects for it meanwhile. kUnsupported: no RDMA device.
Result<std::unique_ptr<Connection>> connect_rdma(const Endpoint& endpoint, int timeout_ms,
                                                 int message_limit_ms);
Result<std::unique_ptr<Listener>> listen_rdma(const Endpoint& endpoint, int message_limit_ms);

}  // namespace splitvisor::fabric
