#include <poll.h>

#include <array>
#include <limits>

#include "base/clock.h"
#include "fabric/accepting.h"
#include "fabric/rdma.h"
#include "fabric/rdma_connection.h"
#include "fabric/rdma_queue.h"
#include "fabric/resolve.h"

namespace splitvisor::fabric {

namespace {

constexpr int kBacklog = 256;
/// The largest that the three bits on the wire take: some seconds until an adapter gives its peer up.
constexpr std::uint8_t kRetries = 7;
/// 7 would mean for ever. The credits leave nothing to retry unless a peer breaks the protocol.
constexpr std::uint8_t kReceiverNotReadyRetries = 6;

Result<CmId> create_id(rdma_event_channel& channel)
{
    rdma_cm_id* id = nullptr;
    if (::rdma_create_id(&channel, &id, nullptr, RDMA_PS_TCP) != 0) return cm_error("rdma_create_id", errno);
    return CmId{id};
}

/// The parameters of connecting and accepting; `hello` must live as long as they.
rdma_conn_param parameters_with(const RdmaHello& hello)
{
    rdma_conn_param parameters{};
    parameters.private_data = &hello;
    parameters.private_data_len = sizeof hello;
    parameters.retry_count = kRetries;
    parameters.rnr_retry_count = kReceiverNotReadyRetries;
    return parameters;
}

Error error_of(const CmEvent& event)
{
    if (event.type == RDMA_CM_EVENT_REJECTED)
        return Error{ErrorCode::kUnavailable, "the connection was refused"};
    if (event.status < 0) return cm_error(::rdma_event_str(event.type), -event.status);
    return Error{ErrorCode::kUnavailable, ::rdma_event_str(event.type)};
}

/// Takes a connection through the steps of rdma_cm, each of which ends in an event, within one deadline.
class Connector {
  public:
    Connector(rdma_event_channel& channel, int timeout_ms)
        : channel_{channel},
          timeout_ms_{timeout_ms},
          deadline_ms_{now_ms() + static_cast<std::uint64_t>(timeout_ms)}
    {
    }

    [[nodiscard]] int left_ms() const
    {
        const auto now = now_ms();
        return now < deadline_ms_ ? static_cast<int>(deadline_ms_ - now) : 0;
    }

    Result<CmEvent> await(rdma_cm_event_type wanted)
    {
        while (true) {
            pollfd waiting{channel_.fd, POLLIN, 0};
            const int count = ::poll(&waiting, 1, left_ms());
            if (count < 0 && errno != EINTR) return Error::from_errno("poll");
            if (count == 0) {
                return Error{ErrorCode::kTimeout, "no answer within " + std::to_string(timeout_ms_) + " ms"};
            }
            const auto event = next_cm_event(channel_);
            if (!event) continue;
            if (event->type != wanted) return error_of(*event);
            return *event;
        }
    }

    Status resolve(rdma_cm_id& id, sockaddr& address)
    {
        if (::rdma_resolve_addr(&id, nullptr, &address, left_ms() + 1) != 0)
            return cm_error("rdma_resolve_addr", errno);
        if (const auto event = await(RDMA_CM_EVENT_ADDR_RESOLVED); !event) return event.error();
        if (::rdma_resolve_route(&id, left_ms() + 1) != 0) return cm_error("rdma_resolve_route", errno);
        if (const auto event = await(RDMA_CM_EVENT_ROUTE_RESOLVED); !event) return event.error();
        return {};
    }

    Status connect(RdmaQueue& queue)
    {
        const auto hello = queue.hello();
        auto parameters = parameters_with(hello);
        if (::rdma_connect(&queue.id(), &parameters) != 0) return cm_error("rdma_connect", errno);
        const auto event = await(RDMA_CM_EVENT_ESTABLISHED);
        if (!event) return event.error();
        return queue.take_hello(event->hello);
    }

  private:
    rdma_event_channel& channel_;
    const int timeout_ms_;
    const std::uint64_t deadline_ms_;
};

Result<std::unique_ptr<RdmaQueue>> connect_queue(const Endpoint& endpoint, int timeout_ms)
{
    const auto address = resolve_host(endpoint, false);
    if (!address) return address.error();
    auto channel = create_cm_channel();
    if (!channel) return channel.error();
    auto id = create_id(**channel);
    if (!id) return id.error();
    Connector connector{**channel, timeout_ms};
    SPLITVISOR_TRY(connector.resolve(**id, *(*address)->ai_addr));
    auto queue = RdmaQueue::create(std::move(*channel), std::move(*id));
    if (!queue) return queue.error();
    SPLITVISOR_TRY(connector.connect(**queue));
    return queue;
}

std::string peer_name(rdma_cm_id& id)
{
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    if (::getnameinfo(::rdma_get_peer_addr(&id), sizeof(sockaddr_storage), host.data(), host.size(),
                      port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "rdma:unknown";
    }
    const std::string name{host.data()};
    return "rdma:" + (name.find(':') == name.npos ? name : "[" + name + "]") + ":" + port.data();
}

class RdmaListener final : public Listener {
  public:
    RdmaListener(CmChannel channel, CmId id, EventFd stop, Endpoint endpoint, int message_limit_ms)
        : channel_{std::move(channel)},
          id_{std::move(id)},
          stop_{std::move(stop)},
          endpoint_{std::move(endpoint)},
          message_limit_ms_{message_limit_ms}
    {
    }
    ~RdmaListener() override { refuse_pending(); }

    Result<std::unique_ptr<Connection>> accept() override;
    [[nodiscard]] Endpoint endpoint() const override { return endpoint_; }
    void shutdown() override { stop_.signal(); }

  private:
    Result<std::unique_ptr<Connection>> welcome(CmId id, const std::optional<RdmaHello>& hello);
    void refuse_pending();

    const CmChannel channel_;
    const CmId id_;
    const EventFd stop_;  ///< never drained: a listener that was shut down stays so
    const Endpoint endpoint_;
    const int message_limit_ms_;
};

/// Connections that nobody accepted. Each has an identifier of its own that must go before the channel.
void RdmaListener::refuse_pending()
{
    while (const auto event = next_cm_event(*channel_)) {
        if (event->type != RDMA_CM_EVENT_CONNECT_REQUEST) continue;
        const CmId id{event->id};
        ::rdma_reject(id.get(), nullptr, 0);
    }
}

/// Nothing here waits for the peer: what it still has to say comes as an event to the connection.
Result<std::unique_ptr<Connection>> RdmaListener::welcome(CmId id, const std::optional<RdmaHello>& hello)
{
    auto channel = create_cm_channel();
    if (!channel) return channel.error();
    if (::rdma_migrate_id(id.get(), channel->get()) != 0) return cm_error("rdma_migrate_id", errno);
    auto queue = RdmaQueue::create(std::move(*channel), std::move(id));
    if (!queue) return queue.error();
    SPLITVISOR_TRY((*queue)->take_hello(hello));
    const auto own = (*queue)->hello();
    auto parameters = parameters_with(own);
    if (::rdma_accept(&(*queue)->id(), &parameters) != 0) return cm_error("rdma_accept", errno);
    auto name = peer_name((*queue)->id());
    return std::unique_ptr<Connection>{
        std::make_unique<RdmaConnection>(std::move(*queue), std::move(name), message_limit_ms_)};
}

Result<std::unique_ptr<Connection>> RdmaListener::accept()
{
    while (true) {
        std::array<pollfd, 2> waiting{{{stop_.fd(), POLLIN, 0}, {channel_->fd, POLLIN, 0}}};
        if (::poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR)
            return Error::from_errno("poll");
        if (waiting[0].revents != 0)
            return Error{ErrorCode::kUnavailable, endpoint_.to_string() + ": shut down"};
        const auto event = next_cm_event(*channel_);
        if (event && event->type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
            return Error{ErrorCode::kUnavailable, endpoint_.to_string() + ": the RDMA device was removed"};
        }
        if (!event || event->type != RDMA_CM_EVENT_CONNECT_REQUEST) continue;
        auto connection = welcome(CmId{event->id}, event->hello);
        if (connection) return connection;
        // A peer that is none of ours is refused by its identifier's end, and is no business of the caller's.
        if (connection.error().code() == ErrorCode::kCorrupt) continue;
        pause_exhausted(stop_);
        return Error{ErrorCode::kNoRoom, endpoint_.to_string() + ": " + connection.error().message()};
    }
}

Result<std::unique_ptr<Listener>> open_listener(const Endpoint& endpoint, int message_limit_ms)
{
    const auto address = resolve_host(endpoint, true);
    if (!address) return address.error();
    auto channel = create_cm_channel();
    if (!channel) return channel.error();
    auto id = create_id(**channel);
    if (!id) return id.error();
    if (::rdma_bind_addr(id->get(), (*address)->ai_addr) != 0) return cm_error("rdma_bind_addr", errno);
    if (::rdma_listen(id->get(), kBacklog) != 0) return cm_error("rdma_listen", errno);
    auto stop = EventFd::create();
    if (!stop) return stop.error();
    auto bound = endpoint;
    bound.port = ntohs(::rdma_get_src_port(id->get()));
    return std::unique_ptr<Listener>{std::make_unique<RdmaListener>(
        std::move(*channel), std::move(*id), std::move(*stop), std::move(bound), message_limit_ms)};
}

}  // namespace

Result<std::unique_ptr<Connection>> connect_rdma(const Endpoint& endpoint, int timeout_ms,
                                                 int message_limit_ms)
{
    auto queue = connect_queue(endpoint, timeout_ms);
    if (!queue) return queue.error().in(endpoint.to_string());
    return std::unique_ptr<Connection>{
        std::make_unique<RdmaConnection>(std::move(*queue), endpoint.to_string(), message_limit_ms)};
}

Result<std::unique_ptr<Listener>> listen_rdma(const Endpoint& endpoint, int message_limit_ms)
{
    auto listener = open_listener(endpoint, message_limit_ms);
    if (!listener) return listener.error().in(endpoint.to_string());
    return listener;
}

}  // namespace splitvisor::fabric
