#include "remote-mem/session.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"

namespace splitvisor::remote_mem {

namespace {

/// Requests sent ahead to one mComponent. What it answers to as many drops or writes, and the heads of as
/// many reads, fit into any socket's buffers, so neither side ever waits for the other with both sending.
constexpr std::uint32_t kWindow = 16;
/// A read waits no longer than this for one replica where there is another.
constexpr std::uint64_t kFailoverMs = 500;
/// One lost SYN is sent again after a second.
constexpr std::uint64_t kConnectMs = 1'500;
/// What sending took from the patience is not held against those who were to answer meanwhile.
constexpr std::uint64_t kMinReplyMs = 1'000;

ReplicaMask bit(std::uint32_t replica)
{
    return ReplicaMask{1} << replica;
}

int connect_timeout(std::uint64_t deadline_ms)
{
    const auto now = now_ms();
    return static_cast<int>(std::clamp<std::uint64_t>(std::max(deadline_ms, now) - now, 1, kConnectMs));
}

void append(std::vector<std::byte>& bytes, std::span<const std::byte> more)
{
    bytes.insert(bytes.end(), more.begin(), more.end());
}

std::uint32_t max_pages(Request kind)
{
    return kind == Request::kDrop ? kMaxDropPages : kMaxRequestPages;
}

}  // namespace

std::size_t Session::Items::size() const
{
    return reads.size() + writes.size() + drops.size();
}

Line Session::Items::line(std::uint32_t item) const
{
    if (!reads.empty()) return reads[item].line;
    if (!writes.empty()) return writes[item].line;
    return drops[item];
}

Session::Session(Placement& placement) : placement_{placement}
{
    for (const auto& component : placement.components()) {
        links_.emplace_back(component, static_cast<int>(placement.patience_ms()), placement.counters());
    }
    window_.resize(links_.size());
}

Status Session::check_access()
{
    items_ = {};
    batches_.clear();
    for (std::uint32_t region = 0; region < placement_.region_count(); ++region) {
        batches_.push_back({.region = region});
    }
    return run(false);
}

Status Session::read(std::span<PageRead> pages)
{
    if (pages.empty()) return {};
    for (auto& page : pages) page.present = false;
    SPLITVISOR_TRY(make_batches({.kind = Request::kRead, .reads = pages}));
    SPLITVISOR_TRY(run(true));
    placement_.counters().pages_read.fetch_add(pages.size(), std::memory_order_relaxed);
    return {};
}

Status Session::write(std::span<const PageWrite> pages)
{
    if (pages.empty()) return {};
    SPLITVISOR_TRY(make_batches({.kind = Request::kWrite, .writes = pages}));
    SPLITVISOR_TRY(run(false));
    placement_.counters().pages_written.fetch_add(pages.size(), std::memory_order_relaxed);
    return {};
}

Status Session::drop(std::span<const Line> lines, Version version)
{
    if (lines.empty()) return {};
    SPLITVISOR_TRY(make_batches({.kind = Request::kDrop, .drops = lines, .drop_version = version}));
    SPLITVISOR_TRY(run(false));
    placement_.counters().pages_dropped.fetch_add(lines.size(), std::memory_order_relaxed);
    return {};
}

Status Session::make_batches(const Items& items)
{
    items_ = items;
    SPLITVISOR_TRY(order_by_region());
    batches_.clear();
    for (std::uint32_t i = 0; i < order_.size(); ++i) {
        const auto region = locations_[order_[i]].region;
        if (batches_.empty() || batches_.back().region != region ||
            batches_.back().count == max_pages(items.kind)) {
            batches_.push_back({.region = region, .first = i});
        }
        ++batches_.back().count;
    }
    return {};
}

Status Session::order_by_region()
{
    order_.clear();
    locations_.clear();
    bool ordered = true;
    for (std::uint32_t item = 0; item < items_.size(); ++item) {
        const auto location = placement_.locate(items_.line(item));
        if (!location) return Error{ErrorCode::kInvalid, "a line outside the vNode's memory"};
        ordered = ordered && (locations_.empty() || locations_.back().region <= location->region);
        locations_.push_back(*location);
        order_.push_back(item);
    }
    if (ordered) return {};
    // By item within a region, so that of two writes of one line the later one stays the later one.
    std::ranges::sort(order_, {}, [this](std::uint32_t item) {
        return std::pair{locations_[item].region, item};
    });
    return {};
}

Status Session::run(bool is_read)
{
    const auto deadline_ms = now_ms() + placement_.patience_ms();
    fatal_.reset();
    last_failure_.reset();
    while (true) {
        begin_round();
        if (is_read) {
            send_reads(deadline_ms);
            take_read_replies(deadline_ms);
        } else {
            // Those who need no connecting first: a machine that does not answer holds up only what comes
            // after it.
            send_updates(deadline_ms, true);
            send_updates(deadline_ms, false);
            take_update_replies(deadline_ms);
        }
        if (fatal_) return *fatal_;
        if (all_complete()) return {};
        if (now_ms() >= deadline_ms) return is_read ? Status{out_of_patience()} : settle();
        pause(deadline_ms);
    }
}

void Session::begin_round()
{
    sent_.clear();
    std::ranges::fill(window_, 0);
    for (auto& batch : batches_) batch.under_way = 0;
}

bool Session::all_complete() const
{
    return std::ranges::all_of(batches_, &Batch::complete);
}

/// Sleeps until a link that is needed may be used again.
void Session::pause(std::uint64_t deadline_ms)
{
    auto until_ms = deadline_ms;
    for (const auto& batch : batches_) {
        if (batch.complete) continue;
        const auto needed = placement_.live(batch.region) & ~batch.done & ~batch.rejected;
        // Nobody is left to ask: the next round sees it and ends the call.
        if (needed == 0) return;
        for (std::uint32_t replica = 0; replica < placement_.copies(batch.region).size(); ++replica) {
            if ((needed & bit(replica)) != 0)
                until_ms = std::min(until_ms, link_of(batch, replica).ready_at_ms());
        }
    }
    const auto now = now_ms();
    if (until_ms > now) std::this_thread::sleep_for(std::chrono::milliseconds{until_ms - now});
}

Link& Session::link_of(const Batch& batch, std::uint32_t replica)
{
    return links_[placement_.copies(batch.region)[replica].component];
}

bool Session::has_window(const Batch& batch, std::uint32_t replica) const
{
    return window_[placement_.copies(batch.region)[replica].component] < kWindow;
}

void Session::build_request(const Batch& batch, std::uint32_t replica)
{
    const auto& copy = placement_.copies(batch.region)[replica];
    head_.clear();
    vectors_.clear();
    append(head_, bytes_of(RequestHeader{.region = copy.region.value(),
                                         .epoch = placement_.epoch().value(),
                                         .capability = copy.capability,
                                         .page_count = batch.count,
                                         .reserved = 0}));
    for (const auto item : std::span{order_}.subspan(batch.first, batch.count)) {
        const auto page = locations_[item].page;
        if (items_.kind == Request::kRead) {
            append(head_, bytes_of(page));
        } else if (items_.kind == Request::kDrop) {
            append(head_, bytes_of(DropEntry{items_.drop_version.value(), page, 0}));
        } else {
            const auto& write = items_.writes[item];
            append(head_, bytes_of(WriteEntry{write.version.value(), page, 0}));
            // Only read from; an iovec cannot say so.
            vectors_.push_back({const_cast<std::byte*>(write.from), kPageBytes});
        }
    }
}

Status Session::send(std::uint32_t batch, std::uint32_t replica)
{
    auto& sending = batches_[batch];
    auto& link = link_of(sending, replica);
    build_request(sending, replica);
    SPLITVISOR_TRY(link.send(items_.kind, head_, vectors_));
    sending.under_way |= bit(replica);
    sent_.push_back({batch, replica, link.generation()});
    ++window_[placement_.copies(sending.region)[replica].component];
    return {};
}

void Session::send_updates(std::uint64_t deadline_ms, bool connected_only)
{
    for (std::uint32_t i = 0; i < batches_.size(); ++i) {
        const auto& batch = batches_[i];
        for (std::uint32_t replica = 0; replica < placement_.copies(batch.region).size(); ++replica) {
            const auto needed = placement_.live(batch.region) & ~batch.done & ~batch.under_way;
            auto& link = link_of(batch, replica);
            if ((needed & bit(replica)) == 0 || !has_window(batch, replica) || !link.ready(now_ms()))
                continue;
            if (connected_only && !link.connected()) continue;
            auto status = link.connect(connect_timeout(deadline_ms));
            if (status) status = send(i, replica);
            if (!status) last_failure_ = status.error();
        }
    }
}

void Session::take_update_replies(std::uint64_t deadline_ms)
{
    const auto reply_deadline_ms =
        std::max(deadline_ms, now_ms() + std::min(kMinReplyMs, placement_.patience_ms()));
    for (const auto& sent : sent_) {
        const auto taken = take_update_reply(sent, reply_deadline_ms);
        if (!taken) last_failure_ = taken.error();
    }
    for (auto& batch : batches_) batch.complete = (placement_.live(batch.region) & ~batch.done) == 0;
}

Status Session::take_update_reply(const Sent& sent, std::uint64_t deadline_ms)
{
    auto& batch = batches_[sent.batch];
    auto& link = link_of(batch, sent.replica);
    if (link.generation() != sent.generation) return {};
    const auto reply = link.receive(deadline_ms);
    if (!reply) return reply.error();
    if (reply->status != 0) return take_refusal(sent, *reply);
    if (reply->head.size() != sizeof(UpdateReply) || reply->data_bytes != 0) {
        return link.fail_because("a reply that does not fit its request");
    }
    const auto stale = load<UpdateReply>(reply->head).stale_pages;
    if (stale > 0) placement_.counters().stale_pages.fetch_add(stale, std::memory_order_relaxed);
    link.succeeded();
    batch.done |= bit(sent.replica);
    return {};
}

/// Patience is over: goes on without the replicas that did not answer, where at least one did.
Status Session::settle()
{
    for (const auto& batch : batches_) {
        if (!batch.complete && !placement_.settle(batch.region, batch.done)) return out_of_patience();
    }
    return {};
}

Error Session::out_of_patience() const
{
    const std::string context = "no answer within " + std::to_string(placement_.patience_ms()) + " ms";
    return Error{ErrorCode::kUnavailable,
                 last_failure_ ? context + ": " + last_failure_->message() : context};
}

/// An mComponent says no. Sets fatal_ where that ends the call.
Status Session::take_refusal(const Sent& sent, const fabric::Incoming& reply)
{
    const auto& batch = batches_[sent.batch];
    auto& link = link_of(batch, sent.replica);
    const auto text = link.receive_text(reply);
    if (!text) return text.error();
    const Error error{code_of(reply.status), *text};
    switch (error.code()) {
    case ErrorCode::kNotFound:
    case ErrorCode::kDenied:
        // It was started anew or the region was taken from us: it has nothing of ours any more.
        if (!placement_.give_up(batch.region, sent.replica, error)) fatal_ = error;
        return {};
    case ErrorCode::kStale:
    case ErrorCode::kInvalid:
    case ErrorCode::kExists:
    case ErrorCode::kNoRoom:
    case ErrorCode::kUnsupported: fatal_ = error; return {};
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimeout:
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo: link.back_off(); return error;
    }
    return error;
}

void Session::send_reads(std::uint64_t deadline_ms)
{
    for (std::uint32_t i = 0; i < batches_.size(); ++i) {
        if (!batches_[i].complete) send_read(i, deadline_ms);
    }
}

/// Sends the batch to the first replica that takes it; to none where all must be waited for.
void Session::send_read(std::uint32_t index, std::uint64_t deadline_ms)
{
    auto& batch = batches_[index];
    for (std::size_t attempt = 0; attempt < kMaxReplicas; ++attempt) {
        const auto replica = choose_replica(batch);
        if (!replica || !has_window(batch, *replica)) return;
        auto status = link_of(batch, *replica).connect(connect_timeout(deadline_ms));
        if (status) status = send(index, *replica);
        if (status) return;
        last_failure_ = status.error();
    }
}

/// A replica to which there is a connection, else one to which one may be tried. This makes a session that
/// has turned away from a replica that hangs stay away, instead of waiting for it again and again.
std::optional<std::uint32_t> Session::choose_replica(const Batch& batch)
{
    const auto candidates = placement_.live(batch.region) & ~batch.rejected;
    if (candidates == 0) {
        fatal_ = Error{ErrorCode::kCorrupt, "a page is damaged in every replica"};
        return std::nullopt;
    }
    const auto now = now_ms();
    std::optional<std::uint32_t> unconnected;
    for (std::uint32_t replica = 0; replica < placement_.copies(batch.region).size(); ++replica) {
        const auto& link = link_of(batch, replica);
        if ((candidates & bit(replica)) == 0 || !link.ready(now)) continue;
        if (link.connected()) return replica;
        if (!unconnected) unconnected = replica;
    }
    return unconnected;
}

void Session::take_read_replies(std::uint64_t deadline_ms)
{
    for (const auto& sent : sent_) {
        const auto& batch = batches_[sent.batch];
        const auto others = placement_.live(batch.region) & ~batch.rejected & ~bit(sent.replica);
        const auto patience_end_ms =
            std::max(deadline_ms, now_ms() + std::min(kMinReplyMs, placement_.patience_ms()));
        const auto until_ms =
            others != 0 ? std::min(patience_end_ms, now_ms() + kFailoverMs) : patience_end_ms;
        const auto taken = take_read_reply(sent, until_ms);
        if (!taken) last_failure_ = taken.error();
    }
}

Status Session::take_read_reply(const Sent& sent, std::uint64_t deadline_ms)
{
    auto& batch = batches_[sent.batch];
    auto& link = link_of(batch, sent.replica);
    if (link.generation() != sent.generation) return {};
    const auto reply = link.receive(deadline_ms);
    if (!reply) return reply.error();
    if (reply->status != 0) return take_refusal(sent, *reply);
    return take_pages(batch, sent.replica, *reply);
}

Status Session::take_pages(Batch& batch, std::uint32_t replica, const fabric::Incoming& reply)
{
    auto& link = link_of(batch, replica);
    SPLITVISOR_TRY(scatter(batch, link, reply));
    link.succeeded();

    // Damaged pages move to the front of the batch, which then consists of them and is asked for elsewhere.
    std::uint32_t damaged = 0;
    for (std::uint32_t i = 0; i < batch.count; ++i) {
        auto& item = order_[batch.first + i];
        const auto entry = load<ReadEntry>(reply.head, i * sizeof(ReadEntry));
        auto& page = items_.reads[item];
        if (entry.state == PageState::kCorrupt) {
            std::swap(item, order_[batch.first + damaged++]);
            continue;
        }
        page.version = Version{entry.version};
        page.present = entry.state != PageState::kAbsent;
        if (entry.state == PageState::kZero) std::memset(page.into, 0, kPageBytes);
    }
    batch.count = damaged;
    batch.complete = damaged == 0;
    if (damaged > 0) {
        batch.rejected |= bit(replica);
        placement_.counters().corrupt_pages.fetch_add(damaged, std::memory_order_relaxed);
    }
    return {};
}

/// Checks the reply against the request and brings the stored pages to where they belong.
Status Session::scatter(const Batch& batch, Link& link, const fabric::Incoming& reply)
{
    bool fits = reply.head.size() == batch.count * sizeof(ReadEntry);
    vectors_.clear();
    for (std::uint32_t i = 0; fits && i < batch.count; ++i) {
        const auto state = load<ReadEntry>(reply.head, i * sizeof(ReadEntry)).state;
        fits = state <= PageState::kCorrupt;
        if (state == PageState::kStored) {
            vectors_.push_back({items_.reads[order_[batch.first + i]].into, kPageBytes});
        }
    }
    if (!fits || reply.data_bytes != vectors_.size() * kPageBytes) {
        return link.fail_because("a reply that does not fit its request");
    }
    return link.receive_data(vectors_);
}

}  // namespace splitvisor::remote_mem
