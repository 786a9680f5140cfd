#include "vmm/virtio/rng.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"

namespace splitvisor::vmm::virtio {

namespace {

constexpr std::array<std::uint16_t, 1> kQueueSizes{64};
constexpr std::size_t kRequestBytesMax = 4096;
/// Requests answered before a reset has its turn: at most 64 KiB of random bytes.
constexpr std::uint32_t kBatch = 16;

}  // namespace

Result<std::unique_ptr<Rng>> Rng::create()
{
    auto worker = Worker::create("virtio-rng");
    if (!worker) return worker.error();
    return std::unique_ptr<Rng>{new Rng{std::move(*worker)}};
}

Rng::Rng(std::unique_ptr<Worker> worker) : worker_{std::move(worker)} {}

Rng::~Rng() { reset(); }

std::span<const std::uint16_t> Rng::queue_sizes() const { return kQueueSizes; }

void Rng::read_config(std::uint32_t offset, std::span<std::byte> into) const { read_config_bytes({}, offset, into); }

void Rng::activate(std::uint64_t /*features*/, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt)
{
    if (queues.empty()) return;
    queue_.emplace(std::move(queues.front()));
    interrupt_ = &interrupt;
    worker_->start({{queue_->doorbell->fd(), POLLIN, [this] { serve(); }}});
}

void Rng::reset()
{
    worker_->rest();
    queue_.reset();
}

void Rng::serve()
{
    queue_->doorbell->drain();
    take_requests();
    if (queue_->queue.publish()) interrupt_->used_buffers();
    if (!queue_->queue.broken()) return;
    worker_->listen(0, 0);
    interrupt_->needs_reset("entropy ring is inconsistent");
}

void Rng::take_requests()
{
    for (std::uint32_t count = 0; count < kBatch; ++count) {
        switch (queue_->queue.pop(chain_)) {
        case PopResult::kChain: queue_->queue.push(chain_.head, fill(chain_)); break;
        case PopResult::kBadChain: ++bad_chains_; break;
        case PopResult::kBroken: return;
        case PopResult::kEmpty:
            if (!queue_->queue.enable_notifications()) return;
            break;
        }
    }
    queue_->doorbell->signal();
}

std::uint32_t Rng::fill(const Chain& chain)
{
    std::array<std::byte, kRequestBytesMax> random;
    const auto wanted = std::min<std::uint64_t>(chain.writable.bytes(), random.size());
    // Up to 256 bytes come whole; more may be cut short by a signal, and what came is an answer too.
    const auto got = ::getrandom(random.data(), wanted, 0);
    if (got <= 0) return 0;
    const auto bytes = static_cast<std::size_t>(got);
    SPLITVISOR_CHECK(chain.writable.write(queue_->queue.memory(), 0, std::span{random}.first(bytes)));
    ++requests_;
    bytes_ += bytes;
    return static_cast<std::uint32_t>(bytes);
}

RngCounters Rng::counters() const
{
    return {.requests = requests_.load(), .bytes = bytes_.load(), .bad_chains = bad_chains_.load()};
}

}  // namespace splitvisor::vmm::virtio
