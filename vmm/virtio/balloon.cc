#include "vmm/virtio/balloon.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/bytes.h"

namespace splitvisor::vmm::virtio {

namespace {

/// Section 5.5.3.
constexpr std::uint64_t kFeatureStats = 1u << 1;
constexpr std::uint64_t kFeatureDeflateOnOom = 1u << 2;
constexpr std::uint64_t kFeaturePagePoison = 1u << 4;
constexpr std::uint64_t kFeatureReporting = 1u << 5;

/// Section 5.5.4.
struct BalloonConfig {
    std::uint32_t num_pages = 0;
    std::uint32_t actual = 0;
    std::uint32_t free_page_hint_cmd_id = 0;
    std::uint32_t poison_val = 0;
};
static_assert(sizeof(BalloonConfig) == 16);

/// Inflate, deflate, statistics, reporting; Linux wants 32 at least for the last. A queue whose feature was not
/// negotiated does not exist, and those after it move up (as Linux drivers since 5.7 number them).
constexpr std::array<std::uint16_t, 4> kQueueSizes{128, 128, 128, 128};
constexpr std::uint16_t kInflateQueue = 0;
constexpr std::uint16_t kDeflateQueue = 1;

/// Page numbers looked at in one request; Linux sends 256.
constexpr std::size_t kPageNumbersMax = 1024;
/// Requests handled before the other queues, and a reset, have their turn.
constexpr std::uint32_t kBatch = 16;

/// Section 5.5.6.3; packed.
constexpr std::size_t kStatBytes = 10;
constexpr std::size_t kStatsMax = 32;

/// Joins neighbouring lines, so that one call forgets as many as possible.
class LineRun {
  public:
    explicit LineRun(const Balloon::Forget& forget) : forget_{forget} {}
    ~LineRun() { flush(); }
    LineRun(const LineRun&) = delete;
    LineRun& operator=(const LineRun&) = delete;

    void add(Line line)
    {
        if (count_ != 0 && line == first_ + count_) {
            ++count_;
            return;
        }
        flush();
        first_ = line;
        count_ = 1;
    }

  private:
    void flush()
    {
        if (count_ != 0) forget_(first_, count_);
        count_ = 0;
    }

    const Balloon::Forget& forget_;
    Line first_;
    std::uint32_t count_ = 0;
};

}  // namespace

Result<std::unique_ptr<Balloon>> Balloon::create(const GuestMemory& memory, Forget forget)
{
    auto wanted = EventFd::create();
    if (!wanted) return wanted.error();
    auto worker = Worker::create("virtio-balloon");
    if (!worker) return worker.error();
    return std::unique_ptr<Balloon>{
        new Balloon{memory, std::move(forget), std::move(*wanted), std::move(*worker)}};
}

Balloon::Balloon(const GuestMemory& memory, Forget forget, EventFd stats_wanted, std::unique_ptr<Worker> worker)
    : memory_{memory}, forget_{std::move(forget)}, stats_wanted_{std::move(stats_wanted)}, worker_{std::move(worker)}
{
}

Balloon::~Balloon() { reset(); }

std::uint64_t Balloon::features() const
{
    return kCommonFeatures | kFeatureStats | kFeatureDeflateOnOom | kFeaturePagePoison | kFeatureReporting;
}

std::span<const std::uint16_t> Balloon::queue_sizes() const { return kQueueSizes; }

void Balloon::read_config(std::uint32_t offset, std::span<std::byte> into) const
{
    const BalloonConfig config{.num_pages = target_pages_.load(), .actual = actual_.load(), .poison_val = poison_.load()};
    read_config_bytes(bytes_of(config), offset, into);
}

void Balloon::write_config(std::uint32_t offset, std::span<const std::byte> from)
{
    if (from.size() != sizeof(std::uint32_t)) return;
    if (offset == offsetof(BalloonConfig, actual)) actual_ = load<std::uint32_t>(from);
    if (offset == offsetof(BalloonConfig, poison_val)) poison_ = load<std::uint32_t>(from);
}

void Balloon::activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt)
{
    const bool has_stats = (features & kFeatureStats) != 0;
    const auto stats_index = has_stats ? 2 : -1;
    const auto report_index = (features & kFeatureReporting) == 0 ? -1 : has_stats ? 3 : 2;
    // Without the feature nothing was said about the content of free pages.
    if ((features & kFeaturePagePoison) == 0) poison_ = 0;

    queues_ = std::move(queues);
    std::vector<Worker::Source> sources;
    for (auto& queue : queues_) {
        const auto source = sources.size();
        std::function<void()> handler;
        if (queue.index == kInflateQueue) {
            handler = [this, &queue, source] { serve(queue, source, &Balloon::handle_inflate); };
        } else if (queue.index == kDeflateQueue) {
            handler = [this, &queue, source] { serve(queue, source, &Balloon::handle_deflate); };
        } else if (queue.index == report_index) {
            handler = [this, &queue, source] { serve(queue, source, &Balloon::handle_report); };
        } else if (queue.index == stats_index) {
            stats_queue_ = &queue;
            stats_source_ = source;
            handler = [this] { serve_stats(); };
        } else {
            continue;
        }
        sources.push_back({queue.doorbell->fd(), POLLIN, std::move(handler)});
    }
    sources.push_back({stats_wanted_.fd(), POLLIN, [this] { serve_stats_request(); }});
    {
        const std::scoped_lock lock{interrupt_mutex_};
        interrupt_ = &interrupt;
    }
    worker_interrupt_ = &interrupt;
    worker_->start(std::move(sources));
}

void Balloon::reset()
{
    {
        const std::scoped_lock lock{interrupt_mutex_};
        interrupt_ = nullptr;
    }
    worker_->rest();
    queues_.clear();
    stats_queue_ = nullptr;
    stats_head_.reset();
    actual_ = 0;
    poison_ = 0;
    const std::scoped_lock lock{stats_mutex_};
    stats_ = {};
}

void Balloon::set_target(PageCount pages)
{
    constexpr std::uint64_t kLargest = std::numeric_limits<std::uint32_t>::max();
    target_pages_ = static_cast<std::uint32_t>(std::min(pages.value(), kLargest));
    ++generation_;
    const std::scoped_lock lock{interrupt_mutex_};
    if (interrupt_ != nullptr) interrupt_->configuration_changed();
}

void Balloon::serve(ActiveQueue& queue, std::size_t source, Handler handle)
{
    queue.doorbell->drain();
    take_chains(queue, handle);
    settle(queue, source);
}

void Balloon::take_chains(ActiveQueue& queue, Handler handle)
{
    for (std::uint32_t count = 0; count < kBatch; ++count) {
        switch (queue.queue.pop(chain_)) {
        case PopResult::kChain:
            (this->*handle)(chain_);
            queue.queue.push(chain_.head, 0);
            break;
        case PopResult::kBadChain: ++bad_chains_; break;
        case PopResult::kBroken: return;
        case PopResult::kEmpty:
            if (!queue.queue.enable_notifications()) return;
            break;
        }
    }
    queue.doorbell->signal();
}

void Balloon::settle(ActiveQueue& queue, std::size_t source)
{
    if (queue.queue.publish()) worker_interrupt_->used_buffers();
    if (!queue.queue.broken()) return;
    worker_->listen(source, 0);
    worker_interrupt_->needs_reset("balloon ring is inconsistent");
}

/// An array of 32-bit page numbers (section 5.5.6).
void Balloon::handle_inflate(const Chain& chain)
{
    std::array<std::uint32_t, kPageNumbersMax> numbers;
    const auto named = chain.readable.bytes() / sizeof(std::uint32_t);
    const auto pages = std::span{numbers}.first(std::min<std::uint64_t>(named, numbers.size()));
    refused_ += named - pages.size();
    if (!chain.readable.read(memory_, 0, std::as_writable_bytes(pages))) return;

    LineRun run{forget_};
    for (const auto number : pages) {
        const auto line = memory_.line_of(Gpa{std::uint64_t{number} << kPageShift});
        if (!line) {
            ++refused_;
            continue;
        }
        run.add(*line);
        ++inflated_;
    }
}

/// The guest simply uses its pages again: they come back as zero at the first touch.
void Balloon::handle_deflate(const Chain& chain)
{
    deflated_ += std::min<std::uint64_t>(chain.readable.bytes() / sizeof(std::uint32_t), kPageNumbersMax);
}

/// The buffers themselves are the free pages (section 5.5.6.5). More pages than the guest has mean that it names some
/// more than once, which would only be work for us.
void Balloon::handle_report(const Chain& chain)
{
    if (poison_ != 0) return;
    auto remaining = memory_.size().value();
    for (const auto& segment : chain.writable.segments()) {
        if (segment.length > remaining) {
            ++refused_;
            return;
        }
        remaining -= segment.length;
        forget_segment(segment);
    }
}

void Balloon::forget_segment(const Segment& segment)
{
    const auto start = (segment.address.value() + kPageBytes - 1) >> kPageShift;
    const auto end = (segment.address.value() + segment.length) >> kPageShift;
    const auto line = start < end ? memory_.line_of(Gpa{start << kPageShift}) : std::nullopt;
    if (!line) {
        ++refused_;
        return;
    }
    forget_(*line, static_cast<std::uint32_t>(end - start));
    reported_ += end - start;
}

void Balloon::request_stats() { stats_wanted_.signal(); }

void Balloon::serve_stats()
{
    stats_queue_->doorbell->drain();
    take_stats();
    settle(*stats_queue_, stats_source_);
}

/// The driver always leaves one buffer with us, filled; giving it back asks for new statistics.
void Balloon::take_stats()
{
    auto& queue = stats_queue_->queue;
    for (std::uint32_t count = 0; count < kBatch; ++count) {
        switch (queue.pop(chain_)) {
        case PopResult::kChain:
            // A buffer that comes is the answer to what was asked meanwhile: giving it back would ask twice.
            if (stats_head_) {
                queue.push(*stats_head_, 0);
            } else {
                stats_wanted_.drain();
            }
            stats_head_ = chain_.head;
            read_stats(chain_);
            break;
        case PopResult::kBadChain: ++bad_chains_; break;
        case PopResult::kBroken: return;
        case PopResult::kEmpty:
            if (!queue.enable_notifications()) return;
            break;
        }
    }
    stats_queue_->doorbell->signal();
}

void Balloon::serve_stats_request()
{
    if (!stats_wanted_.drain() || stats_queue_ == nullptr || !stats_head_) return;
    stats_queue_->queue.push(*std::exchange(stats_head_, std::nullopt), 0);
    settle(*stats_queue_, stats_source_);
}

void Balloon::read_stats(const Chain& chain)
{
    std::array<std::byte, kStatBytes * kStatsMax> bytes;
    const auto count = std::min<std::uint64_t>(chain.readable.bytes() / kStatBytes, kStatsMax);
    if (!chain.readable.read(memory_, 0, std::span{bytes}.first(count * kStatBytes))) return;
    const std::scoped_lock lock{stats_mutex_};
    ++stats_.updates;
    for (std::size_t i = 0; i < count; ++i) {
        const auto tag = load<std::uint16_t>(bytes, i * kStatBytes);
        if (tag < stats_.values.size()) stats_.values[tag] = load<std::uint64_t>(bytes, i * kStatBytes + 2);
    }
}

GuestMemoryStats Balloon::stats() const
{
    const std::scoped_lock lock{stats_mutex_};
    return stats_;
}

BalloonCounters Balloon::counters() const
{
    return {.inflated_pages = inflated_.load(),
            .deflated_pages = deflated_.load(),
            .reported_pages = reported_.load(),
            .refused_pages = refused_.load(),
            .bad_chains = bad_chains_.load()};
}

}  // namespace splitvisor::vmm::virtio
