#pragma once

// Only the rdma_*.cc files include this: the headers below are heavy.
#include <rdma/rdma_cma.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"

namespace splitvisor::fabric {

template <auto kRelease>
struct Releaser {
    template <typename T>
    void operator()(T* object) const
    {
        kRelease(object);
    }
};

using CmChannel = std::unique_ptr<rdma_event_channel, Releaser<rdma_destroy_event_channel>>;
using CmId = std::unique_ptr<rdma_cm_id, Releaser<rdma_destroy_id>>;
using CompletionChannel = std::unique_ptr<ibv_comp_channel, Releaser<ibv_destroy_comp_channel>>;
using CompletionQueue = std::unique_ptr<ibv_cq, Releaser<ibv_destroy_cq>>;
using MemoryRegion = std::unique_ptr<ibv_mr, Releaser<ibv_dereg_mr>>;
using QueuePair = std::unique_ptr<rdma_cm_id, Releaser<rdma_destroy_qp>>;

/// What each side tells the other in the private data of connecting: the receive buffers that it has posted.
struct RdmaHello {
    std::uint32_t magic;
    std::uint32_t buffers;
    std::uint32_t buffer_bytes;
};
static_assert(sizeof(RdmaHello) == 12);

/// An event of the connection manager, already acknowledged.
struct CmEvent {
    rdma_cm_event_type type;
    int status;  ///< 0, a negative errno, or a reason of rejection
    rdma_cm_id* id;
    std::optional<RdmaHello> hello;  ///< where the event carries one
};

/// With its descriptor in non-blocking mode. kUnsupported: this host has no RDMA device.
Result<CmChannel> create_cm_channel();

/// The next event, or nothing where none is there yet.
std::optional<CmEvent> next_cm_event(rdma_event_channel& channel);

/// A call of rdma_cm that failed; says so where the reason is that there is no RDMA device.
Error cm_error(std::string_view what, int error_number);

[[nodiscard]] Status set_nonblocking(int fd);

}  // namespace splitvisor::fabric
