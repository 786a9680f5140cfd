#include "vstore/session.h"

#include <sys/uio.h>

#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/thread.h"

namespace splitvisor::vstore {

namespace {

/// A peer that has shown no capability is not waited for any longer than this.
constexpr int kOpenPatienceMs = 5000;
constexpr int kMaxIdentifies = 16;
/// How long a new session waits for an older one's operations; its client then tries again.
constexpr std::uint64_t kFencePatienceMs = 8000;
/// The data of all requests under way on one connection.
constexpr std::size_t kMaxBytesUnderWay = 32 * kMiB;
/// A request's memory is kept for the next up to this size.
constexpr std::size_t kKeptBytes = 64 * kKiB;

IoKind io_kind(RequestKind kind)
{
    switch (kind) {
    case RequestKind::kRead: return IoKind::kRead;
    case RequestKind::kWrite: return IoKind::kWrite;
    case RequestKind::kFlush: return IoKind::kSync;
    case RequestKind::kDiscard: return IoKind::kDiscard;
    case RequestKind::kWriteZeroes: return IoKind::kWriteZeroes;
    case RequestKind::kOpen:
    case RequestKind::kIdentify:
    case RequestKind::kPing: break;
    }
    SPLITVISOR_CHECK(false);
}

/// The client takes kDenied, kStale and kNotFound for the loss of its volume, which no failed system call is.
Error io_error(std::string_view what, int error_number)
{
    const auto error = Error::from_errno(what, error_number);
    const bool full = error_number == ENOSPC || error_number == EDQUOT;
    return Error{full ? ErrorCode::kNoRoom : ErrorCode::kIo, error.message()};
}

std::size_t data_length(const Request& request)
{
    const bool moves_bytes = request.kind == RequestKind::kRead || request.kind == RequestKind::kWrite;
    return moves_bytes ? request.head.length : 0;
}

}  // namespace

Session::Session(std::unique_ptr<fabric::Connection> connection, VolumeStore& store,
                 const ServingOptions& options, ServingStatistics& statistics)
    : connection_{std::move(connection)}, store_{store}, options_{options}, statistics_{statistics}
{
}

void Session::run()
{
    if (open()) serve();
    connection_->shutdown();
    // The session itself stays until the server looks at it again; what it holds must not.
    engine_.reset();
    file_.reset();
    volume_.reset();
    free_ = {};
    served_ = {};
}

bool Session::open()
{
    for (int i = 0; i < kMaxIdentifies; ++i) {
        const auto incoming = connection_->receive(kOpenPatienceMs);
        if (!incoming) return false;
        auto step = take_first(*incoming);
        if (!step) {
            static_cast<void>(refuse(*incoming, step.error()));
            return false;
        }
        if (*step == Opening::kIdentified) continue;
        if (reply_identity(incoming->request_id, RequestKind::kOpen, *volume_).ok()) return true;
        volume_->gate().leave(*this);
        return false;
    }
    return false;
}

Result<Session::Opening> Session::take_first(const fabric::Incoming& incoming)
{
    const auto request = parse_request(incoming.kind, incoming.head, incoming.data_bytes);
    if (!request) return request.error();
    if (request->kind == RequestKind::kIdentify) {
        SPLITVISOR_TRY(identify(incoming.request_id, *request));
        return Opening::kIdentified;
    }
    if (request->kind != RequestKind::kOpen) return Error{ErrorCode::kInvalid, "no volume is open"};
    SPLITVISOR_TRY(open_volume(request->head));
    return Opening::kOpened;
}

static Result<std::shared_ptr<Volume>> admitted_volume(const VolumeStore& store, const RequestHead& head)
{
    auto volume = store.find(VolumeId{head.volume});
    if (!volume)
        return Error{ErrorCode::kNotFound, "volume " + std::to_string(head.volume) + " does not exist"};
    SPLITVISOR_TRY(volume->admit(head));
    return volume;
}

Status Session::identify(std::uint64_t request_id, const Request& request)
{
    const auto volume = admitted_volume(store_, request.head);
    if (!volume) return volume.error();
    return reply_identity(request_id, RequestKind::kIdentify, **volume);
}

Status Session::open_volume(const RequestHead& head)
{
    auto volume = admitted_volume(store_, head);
    if (!volume) return volume.error();
    auto file = (*volume)->open_file();
    if (!file) return Error{ErrorCode::kIo, file.error().message()};
    auto engine = IoEngine::create(file->get(), {.depth = static_cast<unsigned>(kMaxServed),
                                                 .write_through = options_.write_through,
                                                 .fallocate = options_.fallocate});
    if (!engine) return Error{ErrorCode::kIo, engine.error().message()};

    volume_ = std::move(*volume);
    file_ = std::move(*file);
    engine_ = std::move(*engine);
    key_ = head.session;
    read_only_ = (head.flags & kFlagReadOnly) != 0;
    served_.resize(kMaxServed);
    for (auto& served : served_) free_.push_back(&served);
    if (read_only_) return volume_->gate().enter_reader(*this);
    return volume_->gate().enter(key_, *this, now_ms() + kFencePatienceMs);
}

Status Session::reply_identity(std::uint64_t request_id, RequestKind kind, const Volume& volume)
{
    IdentityHead identity;
    identity.size_bytes = volume.size().value();
    identity.boot_id = options_.boot_id;
    identity.flags = options_.write_through ? kFlagWriteThrough : 0;
    return reply(request_id, kind, bytes_of(identity), {});
}

void Session::serve()
{
    log_info("session opened", field("volume", volume_->id().value()) + field("peer", connection_->peer()));
    {
        Thread completing{"volume-io", [this] { complete_operations(); }};
        while (true) {
            const auto incoming = connection_->receive(-1);
            if (!incoming || !take(*incoming)) break;
        }
        // A reply that the client does not take must not hold up whoever fenced this session.
        connection_->shutdown();
        wait_until_idle();
        {
            const std::lock_guard lock{mutex_};
            ending_ = true;
        }
        engine_->wake();
    }
    volume_->gate().leave(*this);
    log_info("session ended", field("volume", volume_->id().value()) + field("peer", connection_->peer()));
}

bool Session::take(const fabric::Incoming& incoming)
{
    const auto request = parse_request(incoming.kind, incoming.head, incoming.data_bytes);
    if (!request) return refuse(incoming, request.error());
    if (const auto allowed = check(*request); !allowed) return refuse(incoming, allowed.error());
    if (request->kind == RequestKind::kPing) return reply(incoming.request_id, request->kind, {}, {}).ok();
    return begin(incoming, *request);
}

Status Session::check(const Request& request) const
{
    if (request.kind == RequestKind::kOpen || request.kind == RequestKind::kIdentify) {
        return Error{ErrorCode::kInvalid, "a volume is open already"};
    }
    SPLITVISOR_TRY(volume_->admit(request.head));
    if (request.head.session != key_) return Error{ErrorCode::kInvalid, "a request of another session"};
    if (read_only_ && changes_data(request.kind)) return Error{ErrorCode::kDenied, "a read-only session"};
    return check_bounds(request.head.offset, request.head.length, volume_->size());
}

bool Session::begin(const fabric::Incoming& incoming, const Request& request)
{
    auto& served = acquire(request);
    served.request_id = incoming.request_id;
    served.request_kind = request.kind;
    served.kind = io_kind(request.kind);
    served.offset = request.head.offset;
    served.length = request.head.length;
    served.buffer = served.data.data();
    if (request.kind == RequestKind::kWrite) {
        const iovec into{served.data.data(), served.data.size()};
        if (!connection_->receive_data(std::span{&into, 1})) {
            release(served);
            return false;
        }
    }
    if (engine_->start(served)) finish(served);
    return true;
}

void Session::complete_operations()
{
    while (true) {
        IoOperation* const operation = engine_->wait();
        if (operation != nullptr) {
            finish(static_cast<Served&>(*operation));
            continue;
        }
        const std::lock_guard lock{mutex_};
        if (ending_) return;
    }
}

Status Session::outcome_of(const Served& served)
{
    if (served.kind == IoKind::kSync) {
        if (served.error_number != 0) volume_->note_sync_failure();
        if (volume_->sync_failed()) {
            return Error{ErrorCode::kIo, "a sync of the volume has failed: flushed data may be lost"};
        }
    }
    if (served.error_number != 0) return io_error("volume file", served.error_number);
    return {};
}

void Session::count(const Served& served)
{
    constexpr auto kRelaxed = std::memory_order_relaxed;
    if (served.kind == IoKind::kRead) {
        statistics_.read_requests.fetch_add(1, kRelaxed);
        statistics_.read_bytes.fetch_add(served.length, kRelaxed);
    } else if (served.kind == IoKind::kSync) {
        statistics_.flushes.fetch_add(1, kRelaxed);
    } else {
        statistics_.write_requests.fetch_add(1, kRelaxed);
        statistics_.write_bytes.fetch_add(served.length, kRelaxed);
    }
}

void Session::finish(Served& served)
{
    Status sent;
    if (const auto outcome = outcome_of(served); outcome) {
        count(served);
        const auto data = served.kind == IoKind::kRead ? std::span<const std::byte>{served.data}
                                                       : std::span<const std::byte>{};
        sent = reply(served.request_id, served.request_kind, {}, data);
    } else {
        log_error("request failed", field("volume", volume_->id().value()) + field("error", outcome.error()));
        sent = reply_error(served.request_id, served.request_kind, outcome.error());
    }
    if (!sent) connection_->shutdown();
    release(served);
}

Session::Served& Session::acquire(const Request& request)
{
    const auto bytes = data_length(request);
    const bool syncs = request.kind == RequestKind::kFlush;
    std::unique_lock lock{mutex_};
    released_.wait(lock, [&] {
        const bool fits = bytes_under_way_ == 0 || bytes_under_way_ + bytes <= kMaxBytesUnderWay;
        // The kernel reports a failed write-back to one of several syncs of a file: each has to see the one
        // before.
        return !free_.empty() && fits && !(syncs && sync_under_way_);
    });
    auto& served = *free_.back();
    free_.pop_back();
    bytes_under_way_ += bytes;
    if (syncs) sync_under_way_ = true;
    lock.unlock();
    served.data.resize(bytes);
    return served;
}

void Session::release(Served& served)
{
    const auto bytes = served.data.size();
    if (served.data.capacity() > kKeptBytes) served.data = {};
    const std::lock_guard lock{mutex_};
    bytes_under_way_ -= bytes;
    if (served.request_kind == RequestKind::kFlush) sync_under_way_ = false;
    free_.push_back(&served);
    released_.notify_all();
}

void Session::wait_until_idle()
{
    std::unique_lock lock{mutex_};
    released_.wait(lock, [&] { return free_.size() == served_.size(); });
}

Status Session::reply(std::uint64_t request_id, RequestKind kind, std::span<const std::byte> head,
                      std::span<const std::byte> data)
{
    // The transport does not write through iov_base; the type cannot say so.
    const iovec vector{const_cast<std::byte*>(data.data()), data.size()};
    const std::lock_guard lock{sending_};
    return connection_->send({.kind = static_cast<std::uint16_t>(kind),
                              .status = 0,
                              .request_id = request_id,
                              .head = head,
                              .data = {&vector, data.empty() ? 0u : 1u}});
}

Status Session::reply_error(std::uint64_t request_id, RequestKind kind, const Error& error)
{
    auto text = error.message();
    const iovec vector{text.data(), text.size()};
    const std::lock_guard lock{sending_};
    return connection_->send({.kind = static_cast<std::uint16_t>(kind),
                              .status = status_of(error.code()),
                              .request_id = request_id,
                              .head = {},
                              .data = {&vector, 1}});
}

bool Session::refuse(const fabric::Incoming& incoming, const Error& error)
{
    statistics_.refused_requests.fetch_add(1, std::memory_order_relaxed);
    if (refusals_.allow()) {
        log_warning("request refused", field("peer", connection_->peer()) + field("error", error));
    }
    if (!connection_->skip_data()) return false;
    return reply_error(incoming.request_id, static_cast<RequestKind>(incoming.kind), error).ok();
}

}  // namespace splitvisor::vstore
