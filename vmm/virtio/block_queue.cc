#include "vmm/virtio/block_queue.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"

namespace splitvisor::vmm::virtio {

namespace {

/// Memory for the data of requests in flight. When it is used up, further ones wait in the ring.
constexpr std::uint64_t kBufferBytesMax = 16 * kMiB;
/// Larger buffers are not kept for the next request.
constexpr std::size_t kSpareBufferBytes = 64 * kKiB;

constexpr std::size_t kDoorbellSource = 0;

bool carries_data(vstore::BlockKind kind)
{
    return kind == vstore::BlockKind::kRead || kind == vstore::BlockKind::kWrite;
}

BlockStatus status_of(const Status& result)
{
    if (result) return BlockStatus::kOk;
    return result.error().code() == ErrorCode::kUnsupported ? BlockStatus::kUnsupported : BlockStatus::kIoError;
}

}  // namespace

Result<std::shared_ptr<BlockInbox>> BlockInbox::create()
{
    auto arrived = EventFd::create();
    if (!arrived) return arrived.error();
    return std::shared_ptr<BlockInbox>{new BlockInbox{std::move(*arrived)}};
}

void BlockInbox::deliver(std::unique_ptr<BlockJob> job)
{
    bool first = false;
    {
        const std::scoped_lock lock{mutex_};
        if (closed_) return;
        first = jobs_.empty();
        jobs_.push_back(std::move(job));
    }
    if (first) arrived_.signal();
}

void BlockInbox::take(std::vector<std::unique_ptr<BlockJob>>& into)
{
    arrived_.drain();
    const std::scoped_lock lock{mutex_};
    std::swap(into, jobs_);
}

void BlockInbox::close()
{
    std::vector<std::unique_ptr<BlockJob>> dropped;
    const std::scoped_lock lock{mutex_};
    closed_ = true;
    std::swap(dropped, jobs_);
}

Result<std::unique_ptr<BlockQueue>> BlockQueue::create(vstore::BlockBackend& backend, BlockState& state,
                                                       std::string thread_name)
{
    auto inbox = BlockInbox::create();
    if (!inbox) return inbox.error().in("block queue");
    auto worker = Worker::create(std::move(thread_name));
    if (!worker) return worker.error().in("block queue");
    return std::unique_ptr<BlockQueue>{new BlockQueue{backend, state, std::move(*inbox), std::move(*worker)}};
}

BlockQueue::BlockQueue(vstore::BlockBackend& backend, BlockState& state, std::shared_ptr<BlockInbox> inbox,
                       std::unique_ptr<Worker> worker)
    : backend_{backend}, state_{state}, inbox_{std::move(inbox)}, worker_{std::move(worker)}
{
}

BlockQueue::~BlockQueue()
{
    stop();
    inbox_->close();
}

void BlockQueue::start(ActiveQueue queue, bool write_through, DeviceInterrupt& interrupt)
{
    queue_.emplace(std::move(queue));
    interrupt_ = &interrupt;
    write_through_ = write_through;
    chains_.resize(queue_->queue.size());
    worker_->start({{queue_->doorbell->fd(), POLLIN, [this] { serve(); }}, {inbox_->fd(), POLLIN, [this] { serve(); }}});
}

void BlockQueue::stop()
{
    worker_->rest();
    if (!queue_) return;
    queue_.reset();
    ++activation_;
    orphans_ = jobs_out_;
}

/// One batch: however many requests begin and end in it, the driver sees one index update and one interrupt at most.
void BlockQueue::serve()
{
    queue_->doorbell->drain();
    finish_jobs();
    take_requests();
    finish_jobs();
    if (queue_->queue.publish()) interrupt_->used_buffers();
    if (!queue_->queue.broken()) return;
    worker_->listen(kDoorbellSource, 0);
    interrupt_->needs_reset("block request ring is inconsistent");
}

void BlockQueue::finish_jobs()
{
    inbox_->take(arrived_);
    for (auto& job : arrived_) {
        --jobs_out_;
        bytes_out_ -= job->buffer_bytes;
        if (job->activation != activation_) {
            --orphans_;
            ++state_.dropped;
        } else if (write_through_ && job->result && job->kind == vstore::BlockKind::kWrite) {
            auto flush = new_job(job->head, vstore::BlockKind::kFlush, 0);
            submit(std::move(flush), 0);
        } else {
            finish(*job);
        }
        retire(std::move(job));
    }
    arrived_.clear();
}

void BlockQueue::finish(BlockJob& job)
{
    if (!job.result && log_limit_.allow()) log_warning("block request failed", field("cause", job.result.error()));
    if (job.result && job.kind == vstore::BlockKind::kRead) {
        // The pieces were checked to be RAM when they were taken, and RAM stays.
        SPLITVISOR_CHECK(chains_[job.head].writable.write(queue_->queue.memory(), 0, {job.buffer.get(), job.length}));
    }
    answer(job.head, status_of(job.result));
}

void BlockQueue::take_requests()
{
    auto& queue = queue_->queue;
    queue.disable_notifications();
    for (std::uint32_t taken = 0; taken < queue.size(); ++taken) {
        // Both end with a completion, which brings the worker back here.
        if (orphans_ > 0 || bytes_out_ >= kBufferBytesMax) return;
        switch (queue.pop(popped_)) {
        case PopResult::kChain: {
            const auto head = popped_.head;
            std::swap(chains_[head], popped_);
            start_request(head);
            break;
        }
        case PopResult::kBadChain: ++state_.bad_chains; break;
        case PopResult::kBroken: return;
        case PopResult::kEmpty:
            if (!queue.enable_notifications()) return;
            break;
        }
    }
    // There may be more, but completions and a reset have their turn first.
    queue_->doorbell->signal();
}

void BlockQueue::start_request(std::uint16_t head)
{
    using Action = ParsedBlockRequest::Action;
    const auto request = parse_block_request(queue_->queue.memory(), chains_[head],
                                             {state_.capacity_sectors.load(), state_.read_only});
    switch (request.action) {
    case Action::kUnusable:
        ++state_.bad_chains;
        queue_->queue.push(head, 0);
        break;
    case Action::kAnswer: answer(head, request.status); break;
    case Action::kGetId: answer_id(head); break;
    case Action::kRead:
    case Action::kWrite: submit_transfer(head, request); break;
    case Action::kFlush:
        ++state_.flushes;
        submit(new_job(head, vstore::BlockKind::kFlush, 0), 0);
        break;
    case Action::kDiscard:
        ++state_.discards;
        submit(new_job(head, vstore::BlockKind::kDiscard, request.length), request.offset);
        break;
    case Action::kWriteZeroes:
        ++state_.discards;
        submit(new_job(head, vstore::BlockKind::kWriteZeroes, request.length), request.offset);
        break;
    }
}

void BlockQueue::answer(std::uint16_t head, BlockStatus status)
{
    const auto& writable = chains_[head].writable;
    if (status != BlockStatus::kOk) ++state_.errors;
    SPLITVISOR_CHECK(writable.write(queue_->queue.memory(), writable.bytes() - 1, bytes_of(status)));
    queue_->queue.push(head, narrow<std::uint32_t>(writable.bytes()));
}

void BlockQueue::answer_id(std::uint16_t head)
{
    std::array<std::byte, kBlockIdBytes> id{};
    std::ranges::copy(std::as_bytes(std::span{state_.id}), id.begin());
    const auto& writable = chains_[head].writable;
    const auto length = std::min<std::uint64_t>(id.size(), writable.bytes() - 1);
    SPLITVISOR_CHECK(writable.write(queue_->queue.memory(), 0, std::span{id}.first(length)));
    answer(head, BlockStatus::kOk);
}

void BlockQueue::submit_transfer(std::uint16_t head, const ParsedBlockRequest& request)
{
    const bool is_read = request.action == ParsedBlockRequest::Action::kRead;
    auto job = new_job(head, is_read ? vstore::BlockKind::kRead : vstore::BlockKind::kWrite, request.length);
    ++(is_read ? state_.reads : state_.writes);
    (is_read ? state_.read_bytes : state_.written_bytes) += request.length;
    if (!is_read) {
        const std::span<std::byte> data{job->buffer.get(), request.length};
        SPLITVISOR_CHECK(chains_[head].readable.read(queue_->queue.memory(), kBlockHeaderBytes, data));
    }
    submit(std::move(job), request.offset);
}

void BlockQueue::submit(std::unique_ptr<BlockJob> job, std::uint64_t offset)
{
    ++jobs_out_;
    bytes_out_ += job->buffer_bytes;
    vstore::BlockRequest request{.kind = job->kind, .offset = offset, .length = job->length, .data = {}, .done = {}};
    if (carries_data(job->kind)) request.data = {&job->vector, 1};
    // The back end calls `done` exactly once; until then the job is its own owner.
    request.done = [raw = job.release()](Status result) {
        std::unique_ptr<BlockJob> owned{raw};
        owned->result = std::move(result);
        const auto inbox = std::move(owned->inbox);
        inbox->deliver(std::move(owned));
    };
    backend_.submit(std::move(request));
}

std::unique_ptr<BlockJob> BlockQueue::new_job(std::uint16_t head, vstore::BlockKind kind, std::uint64_t length)
{
    std::unique_ptr<BlockJob> job;
    if (spare_.empty()) {
        job = std::make_unique<BlockJob>();
    } else {
        job = std::move(spare_.back());
        spare_.pop_back();
    }
    const auto bytes = carries_data(kind) ? length : 0;
    if (bytes > job->buffer_bytes) {
        job->buffer = std::make_unique_for_overwrite<std::byte[]>(bytes);
        job->buffer_bytes = bytes;
    }
    job->inbox = inbox_;
    job->activation = activation_;
    job->head = head;
    job->kind = kind;
    job->length = length;
    job->vector = {job->buffer.get(), bytes};
    job->result = {};
    return job;
}

void BlockQueue::retire(std::unique_ptr<BlockJob> job)
{
    if (job->buffer_bytes > kSpareBufferBytes) {
        job->buffer.reset();
        job->buffer_bytes = 0;
    }
    if (spare_.size() < kMaxQueueSize) spare_.push_back(std::move(job));
}

}  // namespace splitvisor::vmm::virtio
