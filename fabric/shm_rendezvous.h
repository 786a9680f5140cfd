#pragma once

#include "base/fd.h"
#include "fabric/connection.h"

namespace splitvisor::fabric {

/// How two processes come to share memory: over a Unix socket of type SOCK_SEQPACKET, so that a `unix:`
/// endpoint and a `shm:` endpoint refuse each other in connect. The connecting side makes the memory and
/// sends one packet with its descriptor: connecting then needs no answer, as with the other transports, and
/// the listening side, which may serve many, has only to check.

/// The connecting side. The socket is connected.
[[nodiscard]] Result<std::unique_ptr<Connection>> offer_memory(Fd socket, std::string peer,
                                                               int message_limit_ms);

/// The listening side; the packet has arrived. kDenied: memory that the peer could take away from under us,
/// or anything but memory. kUnavailable: the peer went away without a packet.
[[nodiscard]] Result<std::unique_ptr<Connection>> take_memory(Fd socket, std::string peer,
                                                              int message_limit_ms);

/// `socket` listens at the endpoint, whose file the listener removes at its end.
[[nodiscard]] Result<std::unique_ptr<Listener>> listen_for_memory(Fd socket, const Endpoint& endpoint,
                                                                  int message_limit_ms);

}  // namespace splitvisor::fabric
