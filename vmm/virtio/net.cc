#include "vmm/virtio/net.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"

namespace splitvisor::vmm::virtio {

namespace {

constexpr std::uint64_t kFeatureMac = 1u << 5;      // section 5.1.3
constexpr std::uint64_t kFeatureStatus = 1u << 16;
constexpr std::uint16_t kLinkUp = 1;                // section 5.1.4

struct NetConfig {
    MacAddress mac{};
    std::uint16_t status = kLinkUp;
};
static_assert(sizeof(NetConfig) == 8);

constexpr std::uint16_t kReceiveQueue = 0;
constexpr std::array<std::uint16_t, 2> kQueueSizes{kMaxQueueSize, kMaxQueueSize};

constexpr std::size_t kEthernetHeaderBytes = 14;
constexpr std::size_t kFrameBytesMax = kNetHeaderBytes + 65536;
constexpr std::size_t kNumBuffersOffset = 10;  // in the net header, section 5.1.6

/// Frames handled before the other sources have their turn.
constexpr std::uint32_t kBatch = kMaxQueueSize;

constexpr std::size_t kReceiveSource = 0;
constexpr std::size_t kTransmitSource = 1;
constexpr std::size_t kTapSource = 2;

}  // namespace

Result<std::unique_ptr<Net>> Net::create(TapDevice tap, MacAddress mac)
{
    auto worker = Worker::create("virtio-net");
    if (!worker) return worker.error();
    return std::unique_ptr<Net>{new Net{std::move(tap), mac, std::move(*worker)}};
}

Net::Net(TapDevice tap, MacAddress mac, std::unique_ptr<Worker> worker)
    : tap_{std::move(tap)},
      mac_{mac},
      receive_frame_(kFrameBytesMax),
      transmit_frame_(kFrameBytesMax),
      worker_{std::move(worker)}
{
}

Net::~Net() { reset(); }

std::uint64_t Net::features() const { return kCommonFeatures | kFeatureMac | kFeatureStatus; }

std::span<const std::uint16_t> Net::queue_sizes() const { return kQueueSizes; }

void Net::read_config(std::uint32_t offset, std::span<std::byte> into) const
{
    const NetConfig config{.mac = mac_};
    read_config_bytes(bytes_of(config), offset, into);
}

void Net::activate(std::uint64_t /*features*/, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt)
{
    for (auto& queue : queues) (queue.index == kReceiveQueue ? receive_ : transmit_).emplace(std::move(queue));
    interrupt_ = &interrupt;
    const auto fd_of = [](const std::optional<ActiveQueue>& queue) { return queue ? queue->doorbell->fd() : -1; };
    worker_->start({{fd_of(receive_), POLLIN, [this] { serve_receive(); }},
                    {fd_of(transmit_), POLLIN, [this] { serve_transmit(); }},
                    {tap_.fd(), 0, [this] { serve_tap(); }}});
}

void Net::reset()
{
    worker_->rest();
    receive_.reset();
    transmit_.reset();
    has_receive_chain_ = false;
    pending_bytes_ = 0;
}

/// The driver added receive buffers: frames may flow again, whether or not the tap has been full meanwhile.
void Net::serve_receive()
{
    receive_->doorbell->drain();
    (void)find_receive_buffer();
    settle(*receive_);
    listen_to_tap();
}

void Net::serve_transmit()
{
    transmit_->doorbell->drain();
    transmit_queued();
    settle(*transmit_);
    listen_to_tap();
}

void Net::serve_tap()
{
    if (receive_) {
        for (std::uint32_t count = 0; count < kBatch && find_receive_buffer(); ++count) {
            const auto frame = tap_.receive(receive_frame_);
            if (frame.outcome == TapDevice::Outcome::kWouldBlock) break;
            // A tap that can't be read now won't be later, and poll would return for it at once.
            if (frame.outcome != TapDevice::Outcome::kDone) {
                lose_tap();
                break;
            }
            deliver(frame.bytes);
        }
        // A whole batch leaves no chain at hand: the driver has to know that it is asked for one.
        (void)find_receive_buffer();
        settle(*receive_);
    }
    if (transmit_) {
        transmit_queued();
        settle(*transmit_);
    }
    listen_to_tap();
}

/// Makes sure that a chain is at hand before a frame is taken from the tap. False where the driver has none, and then
/// its next one rings the doorbell.
bool Net::find_receive_buffer()
{
    for (std::uint32_t tries = 0; tries < kBatch && !has_receive_chain_; ++tries) {
        switch (receive_->queue.pop(receive_chain_)) {
        case PopResult::kChain:
            has_receive_chain_ = true;
            receive_->queue.disable_notifications();
            break;
        case PopResult::kBadChain: ++bad_chains_; break;
        case PopResult::kBroken: return false;
        case PopResult::kEmpty:
            if (!receive_->queue.enable_notifications()) return false;
            break;
        }
    }
    if (!has_receive_chain_) receive_->doorbell->signal();
    return has_receive_chain_;
}

/// Puts the frame into the chain at hand; one that does not fit leaves the chain for the next.
void Net::deliver(std::size_t bytes)
{
    if (bytes < kNetHeaderBytes + kEthernetHeaderBytes || bytes > receive_chain_.writable.bytes()) {
        ++receive_dropped_;
        return;
    }
    const auto frame = std::span{receive_frame_}.first(bytes);
    std::ranges::fill(frame.first(kNetHeaderBytes), std::byte{0});
    store<std::uint16_t>(frame, kNumBuffersOffset, 1);
    SPLITVISOR_CHECK(receive_chain_.writable.write(receive_->queue.memory(), 0, frame));
    receive_->queue.push(receive_chain_.head, narrow<std::uint32_t>(bytes));
    has_receive_chain_ = false;
    ++received_;
    received_bytes_ += bytes - kNetHeaderBytes;
}

void Net::transmit_queued()
{
    if (!send_pending()) return;
    auto& queue = transmit_->queue;
    queue.disable_notifications();
    for (std::uint32_t count = 0; count < kBatch; ++count) {
        switch (queue.pop(transmit_chain_)) {
        case PopResult::kChain:
            gather(transmit_chain_);
            // The chain waits with its frame; the tap wakes us.
            if (!send_pending()) return;
            break;
        case PopResult::kBadChain: ++bad_chains_; break;
        case PopResult::kBroken: return;
        case PopResult::kEmpty:
            if (!queue.enable_notifications()) return;
            break;
        }
    }
    transmit_->doorbell->signal();
}

/// Copies the chain's frame out. What the driver wrote into the net header asks for offloads we did not offer.
void Net::gather(const Chain& chain)
{
    const auto bytes = chain.readable.bytes();
    if (bytes < kNetHeaderBytes + kEthernetHeaderBytes || bytes > transmit_frame_.size()) {
        return drop_transmit(chain.head);
    }
    const auto frame = std::span{transmit_frame_}.first(bytes);
    SPLITVISOR_CHECK(chain.readable.read(transmit_->queue.memory(), 0, frame));
    std::ranges::fill(frame.first(kNetHeaderBytes), std::byte{0});
    pending_bytes_ = bytes;
}

void Net::drop_transmit(std::uint16_t head)
{
    ++send_dropped_;
    transmit_->queue.push(head, 0);
}

/// False where the tap has no room for the frame that waits.
bool Net::send_pending()
{
    if (pending_bytes_ == 0) return true;
    const auto bytes = std::exchange(pending_bytes_, 0);
    const auto outcome = tap_gone_ ? TapDevice::Outcome::kGone : tap_.send(std::span{transmit_frame_}.first(bytes));
    switch (outcome) {
    case TapDevice::Outcome::kWouldBlock: pending_bytes_ = bytes; return false;
    case TapDevice::Outcome::kGone: lose_tap(); [[fallthrough]];
    case TapDevice::Outcome::kDropped: drop_transmit(transmit_chain_.head); return true;
    case TapDevice::Outcome::kDone: break;
    }
    ++sent_;
    sent_bytes_ += bytes - kNetHeaderBytes;
    transmit_->queue.push(transmit_chain_.head, 0);
    return true;
}

void Net::settle(ActiveQueue& queue)
{
    if (queue.queue.publish()) interrupt_->used_buffers();
    if (!queue.queue.broken()) return;
    worker_->listen(queue.index == kReceiveQueue ? kReceiveSource : kTransmitSource, 0);
    interrupt_->needs_reset("network ring is inconsistent");
}

/// The interface was deleted under us: the guest sees a network that swallows everything.
void Net::lose_tap()
{
    if (std::exchange(tap_gone_, true)) return;
    if (log_limit_.allow()) log_warning("tap is gone, its network card is mute");
}

/// A full ring must not make poll return for frames that nobody can take, nor an idle transmit queue for room.
void Net::listen_to_tap()
{
    short events = 0;
    if (!tap_gone_ && has_receive_chain_) events |= POLLIN;
    if (!tap_gone_ && pending_bytes_ != 0) events |= POLLOUT;
    worker_->listen(kTapSource, events);
}

NetCounters Net::counters() const
{
    return {.received = received_.load(),
            .received_bytes = received_bytes_.load(),
            .sent = sent_.load(),
            .sent_bytes = sent_bytes_.load(),
            .receive_dropped = receive_dropped_.load(),
            .send_dropped = send_dropped_.load(),
            .bad_chains = bad_chains_.load()};
}

}  // namespace splitvisor::vmm::virtio
