#include "vstore/client.h"

#include <sys/random.h>
#include <sys/uio.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"

namespace splitvisor::vstore {

namespace {

constexpr std::uint64_t kLongestPauseMs = 1000;

std::uint64_t random_instance()
{
    std::uint64_t instance = 0;
    SPLITVISOR_CHECK(::getrandom(&instance, sizeof instance, 0) == sizeof instance);
    return instance;
}

RequestKind request_kind(BlockKind kind)
{
    switch (kind) {
    case BlockKind::kRead: return RequestKind::kRead;
    case BlockKind::kWrite: return RequestKind::kWrite;
    case BlockKind::kFlush: return RequestKind::kFlush;
    case BlockKind::kDiscard: return RequestKind::kDiscard;
    case BlockKind::kWriteZeroes: return RequestKind::kWriteZeroes;
    }
    SPLITVISOR_CHECK(false);
}

enum class Direction { kFromVectors, kToVectors };

/// Copies between `flat` and the bytes of the vectors that start `skip` bytes into them.
void copy_vectors(std::span<const iovec> vectors, std::uint64_t skip, std::span<std::byte> flat,
                  Direction direction)
{
    for (const auto& vector : vectors) {
        if (flat.empty()) return;
        if (skip >= vector.iov_len) {
            skip -= vector.iov_len;
            continue;
        }
        auto* const start = static_cast<std::byte*>(vector.iov_base) + skip;
        const auto count = std::min<std::size_t>(vector.iov_len - skip, flat.size());
        skip = 0;
        if (direction == Direction::kFromVectors) {
            std::memcpy(flat.data(), start, count);
        } else {
            std::memcpy(start, flat.data(), count);
        }
        flat = flat.subspan(count);
    }
}

}  // namespace

RemoteVolume::RemoteVolume(RemoteVolumeOptions options)
    : options_{std::move(options)},
      instance_{random_instance()},
      session_{.instance = instance_, .counter = 0},
      sending_(kMaxRequestBytes),
      receiving_(kMaxRequestBytes)
{
}

Result<std::unique_ptr<RemoteVolume>> RemoteVolume::open(RemoteVolumeOptions options)
{
    std::unique_ptr<RemoteVolume> volume{new RemoteVolume{std::move(options)}};
    if (auto connected = volume->connect_first(); !connected) {
        return connected.error().in("disk " + volume->options_.name);
    }
    volume->start_threads();
    return volume;
}

RemoteVolume::~RemoteVolume()
{
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        connected_ = false;
        if (connection_) connection_->shutdown();
        changed_.notify_all();
    }
    receiving_thread_.join();
    background_.join();
    end_all(Error{ErrorCode::kUnavailable, "the disk is being closed"});
}

void RemoteVolume::start_threads()
{
    background_ = Thread{"volume-send", [this] { pump_in_background(); }};
    receiving_thread_ = Thread{"volume-receive", [this] { receive_replies(); }};
}

VolumeAddress RemoteVolume::address() const
{
    return {.endpoint = options_.endpoint,
            .volume = options_.volume,
            .capability = options_.capability,
            .epoch = options_.epoch,
            .read_only = options_.read_only};
}

void RemoteVolume::report(VolumeState state, const std::string& reason) const
{
    if (options_.on_state) options_.on_state(state, reason);
}

// Connecting: by open(), then by the receiving thread.

Result<VolumeLink> RemoteVolume::try_link()
{
    SessionKey session;
    {
        const std::lock_guard lock{mutex_};
        ++session_.counter;
        session = session_;
    }
    return open_link(address(), session, [this](std::shared_ptr<fabric::Connection> connection) {
        const std::lock_guard lock{mutex_};
        connection_ = std::move(connection);
        return !stopping_;
    });
}

Status RemoteVolume::check_identity(const IdentityHead& identity) const
{
    const auto wanted = capacity_ != ByteCount{} ? capacity_ : options_.size;
    if (wanted != ByteCount{} && identity.size_bytes != wanted.value()) {
        return Error{ErrorCode::kInvalid, "the volume has " + std::to_string(identity.size_bytes) +
                                              " bytes instead of " + std::to_string(wanted.value())};
    }
    const bool may_have_lost = acknowledged_changes_ > durable_changes_ && !write_through_;
    if (may_have_lost && identity.boot_id != boot_id_) {
        return Error{ErrorCode::kIo, "the sComponent was started anew and lost writes that were not flushed"};
    }
    return {};
}

Status RemoteVolume::adopt(VolumeLink link)
{
    const std::lock_guard lock{mutex_};
    SPLITVISOR_TRY(check_identity(link.identity));
    if (capacity_ == ByteCount{}) capacity_ = ByteCount{link.identity.size_bytes};
    boot_id_ = link.identity.boot_id;
    write_through_ = (link.identity.flags & kFlagWriteThrough) != 0;
    connection_ = std::move(link.connection);
    connected_ = true;
    ping_due_ = false;
    connections_.fetch_add(1, std::memory_order_relaxed);
    changed_.notify_all();
    return {};
}

Status RemoteVolume::connect_first()
{
    const auto deadline_ms = now_ms() + options_.open_patience_ms;
    auto pause_ms = kFirstPauseMs;
    while (true) {
        auto link = try_link();
        if (link) {
            SPLITVISOR_TRY(adopt(std::move(*link)));
            report(VolumeState::kConnected, {});
            return {};
        }
        if (link.error().code() != ErrorCode::kUnavailable || now_ms() + pause_ms > deadline_ms)
            return link.error();
        static_cast<void>(pause(pause_ms));
        pause_ms = std::min(2 * pause_ms, kLongestPauseMs);
    }
}

/// False where the volume is being closed or has failed.
bool RemoteVolume::pause(std::uint64_t milliseconds)
{
    std::unique_lock lock{mutex_};
    return !changed_.wait_for(lock, std::chrono::milliseconds{milliseconds},
                              [this] { return stopping_ || failure_.has_value(); });
}

bool RemoteVolume::reconnect()
{
    while (pause(pause_ms_)) {
        pause_ms_ = std::min(2 * pause_ms_, kLongestPauseMs);
        auto link = try_link();
        Status done = link ? adopt(std::move(*link)) : Status{link.error()};
        if (done) {
            log_info("volume connected again", field("disk", options_.name));
            report(VolumeState::kConnected, {});
            return true;
        }
        if (done.error().code() != ErrorCode::kUnavailable) {
            fail(done.error());
            return false;
        }
    }
    return false;
}

void RemoteVolume::lose_connection(const std::string& reason)
{
    {
        const std::lock_guard lock{mutex_};
        if (stopping_ || failure_) return;
        connection_->shutdown();
        connected_ = false;
        ++generation_;
        table_.requeue_sent();
    }
    log_warning("volume connection lost", field("disk", options_.name) + field("reason", reason));
    report(VolumeState::kReconnecting, reason);
}

// Receiving: by the receiving thread alone.

void RemoteVolume::receive_replies()
{
    receiver_ = std::this_thread::get_id();
    do {
        std::shared_ptr<fabric::Connection> connection;
        {
            const std::lock_guard lock{mutex_};
            if (stopping_ || failure_) return;
            connection = connection_;
        }
        serve_connection(*connection);
    } while (reconnect());
}

void RemoteVolume::serve_connection(fabric::Connection& connection)
{
    const int tick_ms = static_cast<int>(std::clamp<std::uint64_t>(options_.silence_ms / 8, 10, 1000));
    auto last_heard_ms = now_ms();
    while (true) {
        const auto incoming = connection.receive(tick_ms);
        if (incoming) {
            last_heard_ms = now_ms();
            if (take_reply(connection, *incoming)) continue;
            return lose_connection("an answer that makes no sense");
        }
        if (incoming.error().code() != ErrorCode::kTimeout)
            return lose_connection(incoming.error().message());
        if (check_liveness(last_heard_ms) == Liveness::kSilent) return lose_connection("no sign of life");
    }
}

RemoteVolume::Liveness RemoteVolume::check_liveness(std::uint64_t& last_heard_ms)
{
    const std::lock_guard lock{mutex_};
    if (table_.size() == 0) last_heard_ms = now_ms();
    const auto silent_ms = now_ms() - last_heard_ms;
    if (silent_ms > options_.silence_ms) return Liveness::kSilent;
    if (silent_ms > options_.silence_ms / 4) {
        ping_due_ = true;
        changed_.notify_all();
    }
    return Liveness::kAlive;
}

bool RemoteVolume::take_reply(fabric::Connection& connection, const fabric::Incoming& incoming)
{
    if (incoming.kind == static_cast<std::uint16_t>(RequestKind::kPing)) return connection.skip_data().ok();

    Flight* flight = nullptr;
    {
        const std::lock_guard lock{mutex_};
        flight = table_.find_sent(incoming.request_id);
    }
    // From here on only this thread touches the flight: it is sent, and the connection is still there.
    if (flight == nullptr) return false;
    if (incoming.kind != static_cast<std::uint16_t>(request_kind(flight->request.kind))) return false;
    if (incoming.status == 0) {
        if (!take_data(connection, incoming, *flight)) return false;
        pause_ms_ = kFirstPauseMs;
        finish_piece(*flight);
        return true;
    }

    auto text = receive_text(connection, incoming);
    if (!text) return false;
    const auto error = error_of(incoming.status, std::move(*text));
    if (is_loss(error.code())) {
        fail(error);
        return false;
    }
    pause_ms_ = kFirstPauseMs;
    finish(*flight, error);
    return true;
}

bool RemoteVolume::take_data(fabric::Connection& connection, const fabric::Incoming& incoming,
                             const Flight& flight)
{
    const bool is_read = flight.request.kind == BlockKind::kRead;
    const auto expected = is_read ? flight.piece_bytes : 0;
    if (incoming.data_bytes != expected) return false;
    if (!is_read) return true;
    const std::span flat{receiving_.data(), expected};
    const iovec into{flat.data(), flat.size()};
    if (!connection.receive_data({&into, 1})) return false;
    copy_vectors(flight.request.data, flight.done_bytes, flat, Direction::kToVectors);
    return true;
}

void RemoteVolume::finish_piece(Flight& flight)
{
    {
        const std::lock_guard lock{mutex_};
        if (changes_data(flight.request.kind)) ++acknowledged_changes_;
        if (flight.request.kind == BlockKind::kFlush) {
            durable_changes_ = std::max(durable_changes_, flight.flush_mark);
        }
        if (!table_.finish_piece(flight)) {
            changed_.notify_all();
            return;
        }
    }
    finish(flight, {});
}

void RemoteVolume::finish(Flight& flight, const Status& status)
{
    BlockRequest request;
    {
        const std::lock_guard lock{mutex_};
        request = table_.remove(flight);
        if (has_work()) changed_.notify_all();
    }
    request.done(status);
}

// Sending: by the pumping thread, whichever that is.

Status RemoteVolume::check(const BlockRequest& request) const
{
    if (request.kind == BlockKind::kFlush) return {};
    if (request.length == 0) return Error{ErrorCode::kInvalid, "an empty range"};
    SPLITVISOR_TRY(check_bounds(request.offset, request.length, capacity_));
    if (options_.read_only && changes_data(request.kind))
        return Error{ErrorCode::kDenied, "a read-only disk"};

    const bool moves_bytes = request.kind == BlockKind::kRead || request.kind == BlockKind::kWrite;
    std::uint64_t left = moves_bytes ? request.length : 0;
    for (const auto& vector : request.data) {
        if (vector.iov_len > left) return Error{ErrorCode::kInvalid, "the buffers are longer than the range"};
        left -= vector.iov_len;
    }
    if (left != 0) return Error{ErrorCode::kInvalid, "the buffers are shorter than the range"};
    return {};
}

void RemoteVolume::submit(BlockRequest request)
{
    if (auto checked = check(request); !checked) return request.done(checked);
    if (request.kind == BlockKind::kFlush) request.offset = request.length = 0;

    std::unique_lock lock{mutex_};
    if (failure_) {
        const Status failed{*failure_};
        lock.unlock();
        return request.done(failed);
    }
    Flight* const flight = table_.admit(request);
    if (flight == nullptr) {
        lock.unlock();
        return request.done(Error{ErrorCode::kNoRoom, "too many requests in flight"});
    }
    flight->flush_mark = acknowledged_changes_;
    if (!has_work() || pumping_) return;
    if (std::this_thread::get_id() == receiver_.load(std::memory_order_relaxed)) {
        changed_.notify_all();
        return;
    }
    lock.unlock();
    pump();
}

void RemoteVolume::pump_in_background()
{
    while (true) {
        {
            std::unique_lock lock{mutex_};
            changed_.wait(lock, [this] { return stopping_ || failure_ || (has_work() && !pumping_); });
            if (stopping_ || failure_) return;
        }
        pump();
    }
}

void RemoteVolume::pump()
{
    std::unique_lock lock{mutex_};
    if (pumping_) return;
    pumping_ = true;
    while (has_work()) {
        if (ping_due_) {
            send_ping(lock);
        } else {
            send_next(lock);
        }
    }
    pumping_ = false;
    changed_.notify_all();
}

void RemoteVolume::send_message(std::unique_lock<std::mutex>& lock, const fabric::Message& message)
{
    const auto connection = connection_;
    const auto generation = generation_;
    lock.unlock();
    const auto sent = connection->send(message);
    lock.lock();
    if (sent || generation != generation_) return;
    // The receiving thread finds the connection ended and takes care of what was sent.
    connection->shutdown();
    connected_ = false;
}

void RemoteVolume::send_ping(std::unique_lock<std::mutex>& lock)
{
    ping_due_ = false;
    const auto head = head_for(address(), session_);
    send_message(lock, {.kind = static_cast<std::uint16_t>(RequestKind::kPing),
                        .status = 0,
                        .request_id = 0,
                        .head = bytes_of(head),
                        .data = {}});
}

void RemoteVolume::send_next(std::unique_lock<std::mutex>& lock)
{
    Flight& flight = *table_.take_queued();
    const auto generation = generation_;
    std::span<std::byte> data;
    if (flight.request.kind == BlockKind::kWrite) {
        // The guest's pages may be remote: no lock is held while they are brought in.
        lock.unlock();
        data = {sending_.data(), flight.piece_bytes};
        copy_vectors(flight.request.data, flight.done_bytes, data, Direction::kFromVectors);
        lock.lock();
    }
    if (generation != generation_ || !connected_) return table_.put_back(flight);

    auto head = head_for(address(), session_);
    head.offset = flight.request.offset + flight.done_bytes;
    head.length = flight.piece_bytes;
    flight.state = Flight::State::kSent;
    const iovec vector{data.data(), data.size()};
    send_message(lock, {.kind = static_cast<std::uint16_t>(request_kind(flight.request.kind)),
                        .status = 0,
                        .request_id = flight.wire_id,
                        .head = bytes_of(head),
                        .data = {&vector, data.empty() ? 0u : 1u}});
}

// The end.

void RemoteVolume::fail(const Error& error)
{
    log_error("volume failed", field("disk", options_.name) + field("error", error));
    report(VolumeState::kFailed, error.message());
    end_all(error);
}

void RemoteVolume::end_all(const Error& error)
{
    std::vector<BlockRequest> requests;
    {
        std::unique_lock lock{mutex_};
        failure_ = failure_ ? failure_ : std::optional{error};
        connected_ = false;
        if (connection_) connection_->shutdown();
        changed_.notify_all();
        // The sender may be reading a request's buffers.
        changed_.wait(lock, [this] { return !pumping_; });
        requests = table_.remove_all();
    }
    for (auto& request : requests) request.done(error);
}

}  // namespace splitvisor::vstore
