#include "fabric/rdma_queue.h"

#include <arpa/inet.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/clock.h"

namespace splitvisor::fabric {

namespace {

/// "SVR1": the last digit is the version of what this file does on the wire.
constexpr std::uint32_t kMagic = 0x31525653;
/// A page with its header and head travels in one SEND.
constexpr std::uint32_t kBufferBytes = 8 * 1024;
constexpr std::uint32_t kWantedBuffers = 64;
constexpr std::uint32_t kMinBuffers = 4;
constexpr std::uint32_t kMaxPeerBuffers = 65'536;
constexpr std::uint32_t kMinPeerBufferBytes = 512;
/// Receive buffers beyond the ring, for SENDs that only bring credits and for the last one of finish.
constexpr std::uint32_t kSpareReceives = 4;
/// Send requests beyond the ring, for the same.
constexpr std::uint32_t kSpareSends = 8;
constexpr std::uint32_t kSignalEvery = 4;
constexpr std::uint32_t kWantedInlineBytes = 256;
constexpr int kPollBatch = 16;
constexpr std::uint64_t kSpinNs = 50'000;
constexpr std::uint64_t kLingerMs = 200;

constexpr std::uint64_t kSendFlag = std::uint64_t{1} << 63;

/// A completion says what it sets free: so many requests, so many slots.
std::uint64_t send_id(std::uint32_t requests, std::uint32_t slots)
{
    return kSendFlag | std::uint64_t{slots} << 16 | requests;
}

}  // namespace

RdmaQueue::RdmaQueue(CmChannel channel, CmId id, EventFd sender_wake, EventFd receiver_wake)
    : channel_{std::move(channel)},
      id_{std::move(id)},
      sender_{std::move(sender_wake)},
      receiver_{std::move(receiver_wake)}
{
}

RdmaQueue::~RdmaQueue()
{
    finish();
}

Result<std::unique_ptr<RdmaQueue>> RdmaQueue::create(CmChannel channel, CmId id)
{
    auto sender_wake = EventFd::create();
    if (!sender_wake) return sender_wake.error();
    auto receiver_wake = EventFd::create();
    if (!receiver_wake) return receiver_wake.error();
    std::unique_ptr<RdmaQueue> queue{
        new RdmaQueue{std::move(channel), std::move(id), std::move(*sender_wake), std::move(*receiver_wake)}};
    const auto ready = queue->set_up();
    if (!ready) return ready.error();
    return queue;
}

Status RdmaQueue::set_up()
{
    ibv_device_attr device{};
    if (const int failed = ::ibv_query_device(id_->verbs, &device); failed != 0) {
        return Error::from_errno("ibv_query_device", failed);
    }
    const auto most_requests = static_cast<std::uint32_t>(std::max(device.max_qp_wr, 0));
    const auto most_completions = static_cast<std::uint32_t>(std::max(device.max_cqe, 0)) / 2;
    const auto most = std::min(most_requests, most_completions);
    buffers_ = std::min(kWantedBuffers, most - std::min(most, kSpareSends));
    if (buffers_ < kMinBuffers)
        return Error{ErrorCode::kUnsupported, "the RDMA device's queues are too short"};

    auto memory = Mapping::anonymous(ByteCount{std::uint64_t{2 * buffers_ + kSpareReceives} * kBufferBytes});
    if (!memory) return memory.error();
    memory_ = std::move(*memory);
    region_.reset(::ibv_reg_mr(id_->pd, memory_.data(), memory_.size(), IBV_ACCESS_LOCAL_WRITE));
    if (region_ == nullptr) return Error::from_errno("ibv_reg_mr");
    arrived_.resize(buffers_ + kSpareReceives);
    SPLITVISOR_TRY(create_queue_pair());
    return post_all_receives();
}

Status RdmaQueue::create_queue_pair()
{
    completions_.reset(::ibv_create_comp_channel(id_->verbs));
    if (completions_ == nullptr) return Error::from_errno("ibv_create_comp_channel");
    SPLITVISOR_TRY(set_nonblocking(completions_->fd));
    const auto requests = 2 * buffers_ + kSpareReceives + kSpareSends;
    queue_.reset(::ibv_create_cq(id_->verbs, static_cast<int>(requests), nullptr, completions_.get(), 0));
    if (queue_ == nullptr) return Error::from_errno("ibv_create_cq");

    // A device that has no inline data may refuse the wish instead of lowering it.
    for (const auto inline_bytes : {kWantedInlineBytes, 0u}) {
        ibv_qp_init_attr wish{};
        wish.send_cq = queue_.get();
        wish.recv_cq = queue_.get();
        wish.cap = {.max_send_wr = buffers_ + kSpareSends,
                    .max_recv_wr = buffers_ + kSpareReceives,
                    .max_send_sge = 1,
                    .max_recv_sge = 1,
                    .max_inline_data = inline_bytes};
        wish.qp_type = IBV_QPT_RC;
        if (::rdma_create_qp(id_.get(), id_->pd, &wish) != 0) continue;
        pair_.reset(id_.get());
        inline_bytes_ = wish.cap.max_inline_data;
        return {};
    }
    return Error::from_errno("rdma_create_qp");
}

Status RdmaQueue::post_all_receives()
{
    const std::lock_guard lock{mutex_};
    for (std::uint32_t buffer = 0; buffer < buffers_ + kSpareReceives; ++buffer) post_receive(buffer);
    if (!failure().empty()) return Error{ErrorCode::kIo, std::string{failure()}};
    return {};
}

RdmaHello RdmaQueue::hello() const
{
    return {kMagic, buffers_, kBufferBytes};
}

Status RdmaQueue::take_hello(const std::optional<RdmaHello>& peer)
{
    if (!peer || peer->magic != kMagic || peer->buffers < kMinBuffers || peer->buffers > kMaxPeerBuffers ||
        peer->buffer_bytes < kMinPeerBufferBytes) {
        return Error{ErrorCode::kCorrupt, "the peer does not speak our protocol, or another version of it"};
    }
    const std::lock_guard lock{mutex_};
    peer_buffers_ = peer->buffers;
    credits_ = peer_buffers_;
    chunk_bytes_ = std::min(peer->buffer_bytes, kBufferBytes);
    return {};
}

std::byte* RdmaQueue::receive_buffer(std::uint32_t buffer) const
{
    return memory_.data() + std::size_t{buffer} * kBufferBytes;
}

std::byte* RdmaQueue::send_buffer(std::uint32_t slot) const
{
    return receive_buffer(buffers_ + kSpareReceives + slot);
}

void RdmaQueue::fail(const char* why)
{
    const char* none = failure_.load();
    if (*none == '\0') failure_.compare_exchange_strong(none, why);
}

void RdmaQueue::wake(Side side)
{
    if (waiter(side).sleeping) waiter(side).wake.signal();
}

bool RdmaQueue::can_send() const
{
    return credits_ > 0 && slots_in_use_ < buffers_ && sends_in_flight_ < buffers_ + kSpareSends - 1;
}

bool RdmaQueue::ready(Side side) const
{
    if (finished_.load() || !failure().empty()) return true;
    return side == Side::kSender ? can_send() : arrived_count_ > 0;
}

void RdmaQueue::poll_completions()
{
    std::array<ibv_wc, kPollBatch> batch;
    int count = 0;
    do {
        count = ::ibv_poll_cq(queue_.get(), kPollBatch, batch.data());
        for (int i = 0; i < count; ++i) take_completion(batch[static_cast<std::size_t>(i)]);
    } while (count == kPollBatch);
    if (count < 0) fail("polling for completions failed");
    return_credits();
    if (!failure().empty()) {
        wake(Side::kSender);
        wake(Side::kReceiver);
    }
}

void RdmaQueue::take_completion(const ibv_wc& completion)
{
    if (completion.status != IBV_WC_SUCCESS) {
        // A flush follows from an end that has its own reason, or from the peer's disconnecting.
        fail(completion.status == IBV_WC_WR_FLUSH_ERR ? "the connection was closed"
                                                      : ::ibv_wc_status_str(completion.status));
    } else if ((completion.wr_id & kSendFlag) != 0) {
        take_send(completion);
    } else {
        take_receive(completion);
    }
}

void RdmaQueue::take_send(const ibv_wc& completion)
{
    sends_in_flight_ -= static_cast<std::uint32_t>(completion.wr_id & 0xffff);
    slots_in_use_ -= static_cast<std::uint32_t>(completion.wr_id >> 16 & 0xffff);
    wake(Side::kSender);
}

void RdmaQueue::take_receive(const ibv_wc& completion)
{
    const auto buffer = static_cast<std::uint32_t>(completion.wr_id);
    const auto granted = ntohl(completion.imm_data);
    if ((completion.wc_flags & IBV_WC_WITH_IMM) == 0 || granted > peer_buffers_ - credits_) {
        fail("the peer grants credits that it cannot have");
        return;
    }
    // A buffer without bytes goes back before its credits are used: the peer counts on it.
    if (completion.byte_len == 0) {
        post_receive(buffer);
    } else {
        arrived_[(first_ + arrived_count_) % arrived_.size()] = {buffer, completion.byte_len};
        ++arrived_count_;
        wake(Side::kReceiver);
    }
    credits_ += granted;
    if (granted > 0) wake(Side::kSender);
}

void RdmaQueue::post_receive(std::uint32_t buffer)
{
    ibv_sge piece{reinterpret_cast<std::uintptr_t>(receive_buffer(buffer)), kBufferBytes, region_->lkey};
    ibv_recv_wr request{};
    request.wr_id = buffer;
    request.sg_list = &piece;
    request.num_sge = 1;
    ibv_recv_wr* refused = nullptr;
    if (::ibv_post_recv(pair_->qp, &request, &refused) != 0) fail("a receive buffer was refused");
}

/// Sends the next slot, or credits only where `bytes` is 0.
bool RdmaQueue::post_send(std::size_t bytes, bool signalled)
{
    const bool slot = bytes > 0;
    signalled = signalled || unsignalled_sends_ + 1 >= kSignalEvery;
    ibv_sge piece{reinterpret_cast<std::uintptr_t>(send_buffer(next_slot_)),
                  static_cast<std::uint32_t>(bytes), region_->lkey};
    ibv_send_wr request{};
    request.wr_id = send_id(unsignalled_sends_ + 1, unsignalled_slots_ + (slot ? 1 : 0));
    request.sg_list = &piece;
    request.num_sge = slot ? 1 : 0;
    request.opcode = IBV_WR_SEND_WITH_IMM;
    if (signalled) request.send_flags |= IBV_SEND_SIGNALED;
    if (slot && bytes <= inline_bytes_) request.send_flags |= IBV_SEND_INLINE;
    request.imm_data = htonl(owed_);
    ibv_send_wr* refused = nullptr;
    if (::ibv_post_send(pair_->qp, &request, &refused) != 0) {
        fail("a send was refused");
        return false;
    }
    owed_ = 0;
    ++sends_in_flight_;
    unsignalled_sends_ = signalled ? 0 : unsignalled_sends_ + 1;
    unsignalled_slots_ = signalled ? 0 : unsignalled_slots_ + (slot ? 1 : 0);
    if (slot) {
        --credits_;
        ++slots_in_use_;
        next_slot_ = (next_slot_ + 1) % buffers_;
    }
    return true;
}

void RdmaQueue::return_credits()
{
    if (owed_ < buffers_ / 2 || !failure().empty()) return;
    // One request stays free for finish. Where there is none left the next completion brings us here again.
    if (sends_in_flight_ < buffers_ + kSpareSends - 1) post_send(0, false);
}

std::size_t RdmaQueue::write(std::span<const iovec> from)
{
    {
        const std::lock_guard lock{mutex_};
        if (!can_send()) poll_completions();
        if (!can_send() || !failure().empty()) return 0;
    }
    // The slot is free, and this thread alone takes slots.
    std::size_t filled = 0;
    for (const auto& vector : from) {
        const auto count = std::min<std::size_t>(vector.iov_len, chunk_bytes_ - filled);
        if (count > 0) std::memcpy(send_buffer(next_slot_) + filled, vector.iov_base, count);
        filled += count;
        if (filled == chunk_bytes_) break;
    }
    const std::lock_guard lock{mutex_};
    return !finished_.load() && filled > 0 && post_send(filled, false) ? filled : 0;
}

std::size_t RdmaQueue::read(std::span<const iovec> into)
{
    std::size_t taken = 0;
    std::size_t offset = 0;  // in the first vector
    const std::lock_guard lock{mutex_};
    if (arrived_count_ == 0) poll_completions();
    while (!into.empty() && arrived_count_ > 0) {
        const auto chunk = arrived_[first_];
        const auto count = std::min(into.front().iov_len - offset, chunk.bytes - consumed_);
        if (count > 0) {
            std::memcpy(static_cast<std::byte*>(into.front().iov_base) + offset,
                        receive_buffer(chunk.buffer) + consumed_, count);
        }
        taken += count;
        offset += count;
        consumed_ += count;
        if (offset == into.front().iov_len) {
            into = into.subspan(1);
            offset = 0;
        }
        if (consumed_ < chunk.bytes) continue;
        consumed_ = 0;
        first_ = (first_ + 1) % static_cast<std::uint32_t>(arrived_.size());
        --arrived_count_;
        post_receive(chunk.buffer);
        ++owed_;
        return_credits();
    }
    return taken;
}

bool RdmaQueue::input_ready()
{
    const std::lock_guard lock{mutex_};
    if (arrived_count_ == 0) poll_completions();
    return ready(Side::kReceiver);
}

bool RdmaQueue::wait_for_output(std::uint64_t deadline_ms)
{
    const auto end_ns = now_ns() + kSpinNs;
    do {
        {
            const std::lock_guard lock{mutex_};
            poll_completions();
            if (ready(Side::kSender)) return true;
        }
        ::sched_yield();
    } while (now_ns() < end_ns);
    return wait(Side::kSender, deadline_ms);
}

bool RdmaQueue::wait_for_input(std::uint64_t deadline_ms)
{
    return wait(Side::kReceiver, deadline_ms);
}

bool RdmaQueue::wait(Side side, std::uint64_t deadline_ms)
{
    while (prepare_sleep(side)) {
        const auto now = now_ms();
        const auto left = deadline_ms <= now ? 0 : std::min<std::uint64_t>(deadline_ms - now, INT_MAX);
        std::array<pollfd, 3> waiting{
            {{completions_->fd, POLLIN, 0}, {channel_->fd, POLLIN, 0}, {waiter(side).wake.fd(), POLLIN, 0}}};
        const int count = ::poll(waiting.data(), waiting.size(), static_cast<int>(left));
        if (count < 0 && errno != EINTR) fail("poll failed");
        waiter(side).wake.drain();
        if (count > 0 && waiting[1].revents != 0) take_cm_events();
        end_sleep(side, count > 0 && waiting[0].revents != 0);
        if (left > 0) continue;
        const std::lock_guard lock{mutex_};
        poll_completions();
        return ready(side);
    }
    return true;
}

/// Asks for a notification, then looks once more: what came before the notification was armed raises none.
bool RdmaQueue::prepare_sleep(Side side)
{
    const std::lock_guard lock{mutex_};
    poll_completions();
    if (ready(side)) return false;
    if (::ibv_req_notify_cq(queue_.get(), 0) != 0) fail("no notification of completions");
    poll_completions();
    waiter(side).sleeping = !ready(side);
    return waiter(side).sleeping;
}

void RdmaQueue::end_sleep(Side side, bool completions)
{
    const std::lock_guard lock{mutex_};
    waiter(side).sleeping = false;
    if (!completions) return;
    ibv_cq* queue = nullptr;
    void* context = nullptr;
    while (::ibv_get_cq_event(completions_.get(), &queue, &context) == 0) ::ibv_ack_cq_events(queue, 1);
    // The notification was for both; the other arms its own once it is awake.
    wake(side == Side::kSender ? Side::kReceiver : Side::kSender);
}

void RdmaQueue::take_cm_events()
{
    bool over = false;
    while (const auto event = next_cm_event(*channel_)) {
        if (event->type == RDMA_CM_EVENT_DISCONNECTED) {
            fail("the peer closed the connection");
            over = true;
        } else if (event->type != RDMA_CM_EVENT_ESTABLISHED && event->type != RDMA_CM_EVENT_TIMEWAIT_EXIT) {
            fail(::rdma_event_str(event->type));
            over = true;
        }
    }
    if (over) disconnect();
    const std::lock_guard lock{mutex_};
    // What arrived before the end is in the completion queue already.
    poll_completions();
}

void RdmaQueue::disconnect()
{
    if (!disconnected_.exchange(true)) ::rdma_disconnect(id_.get());
}

void RdmaQueue::linger()
{
    const auto end_ms = now_ms() + kLingerMs;
    bool asked = false;
    while (now_ms() < end_ms) {
        take_cm_events();
        {
            const std::lock_guard lock{mutex_};
            if (!failure().empty() || sends_in_flight_ == 0) return;
            if (!asked && unsignalled_sends_ > 0) post_send(0, true);
            asked = true;
            poll_completions();
        }
        std::this_thread::sleep_for(std::chrono::microseconds{100});
    }
}

void RdmaQueue::finish()
{
    if (finished_.exchange(true)) return;
    sender_.wake.signal();
    receiver_.wake.signal();
    if (pair_ == nullptr) return;
    linger();
    disconnect();
}

}  // namespace splitvisor::fabric
