#include "fabric/rdma_verbs.h"

#include <fcntl.h>

#include <cstring>

namespace splitvisor::fabric {

Status set_nonblocking(int fd)
{
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return Error::from_errno("fcntl");
    return {};
}

Error cm_error(std::string_view what, int error_number)
{
    if (error_number == ENODEV || error_number == ENOENT) {
        return Error{ErrorCode::kUnsupported, "no RDMA device for it on this host"};
    }
    return Error::from_errno(what, error_number);
}

Result<CmChannel> create_cm_channel()
{
    CmChannel channel{::rdma_create_event_channel()};
    if (channel == nullptr) return cm_error("rdma_create_event_channel", errno);
    SPLITVISOR_TRY(set_nonblocking(channel->fd));
    return channel;
}

std::optional<CmEvent> next_cm_event(rdma_event_channel& channel)
{
    rdma_cm_event* event = nullptr;
    if (::rdma_get_cm_event(&channel, &event) != 0) return std::nullopt;
    CmEvent taken{event->event, event->status, event->id, std::nullopt};
    const auto& parameters = event->param.conn;
    const bool connects =
        event->event == RDMA_CM_EVENT_CONNECT_REQUEST || event->event == RDMA_CM_EVENT_ESTABLISHED;
    if (connects && parameters.private_data != nullptr && parameters.private_data_len >= sizeof(RdmaHello)) {
        std::memcpy(&taken.hello.emplace(), parameters.private_data, sizeof(RdmaHello));
    }
    ::rdma_ack_cm_event(event);
    return taken;
}

}  // namespace splitvisor::fabric
