#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/thread.h"
#include "vstore/block_backend.h"

namespace splitvisor::fakes {

/// A disk in memory that completes when the test wants it to. It insists on what the door asks of callers.
/// Thread-safe.
class FakeBlockBackend final : public vstore::BlockBackend {
  public:
    enum class Mode {
        kInline,  ///< submit() completes
        kThread,  ///< a thread completes, in random order
        kHeld,    ///< release() completes
    };
    struct Seen {
        vstore::BlockKind kind{};
        std::uint64_t offset = 0;
        std::uint64_t length = 0;
    };

    explicit FakeBlockBackend(std::uint64_t bytes, Mode mode = Mode::kInline, bool read_only = false)
        : disk_(bytes), mode_{mode}, read_only_{read_only}
    {
        if (mode == Mode::kThread) thread_ = Thread{"fake-disk", [this] { run(); }};
    }
    ~FakeBlockBackend() override
    {
        {
            const std::scoped_lock lock{mutex_};
            ended_ = true;
        }
        changed_.notify_all();
        thread_.join();
        for (auto& request : held_) request.done(Error{ErrorCode::kUnavailable, "the disk went away"});
    }

    void submit(vstore::BlockRequest request) override
    {
        check(request);
        {
            const std::scoped_lock lock{mutex_};
            seen_.push_back({request.kind, request.offset, request.length});
            most_in_flight_ = std::max(most_in_flight_, ++in_flight_);
            if (mode_ != Mode::kInline) {
                held_.push_back(std::move(request));
                changed_.notify_all();
                return;
            }
        }
        complete(request);
    }
    [[nodiscard]] ByteCount capacity() const override { return ByteCount{disk_.size()}; }
    [[nodiscard]] bool read_only() const override { return read_only_; }

    /// Completes all that is held, last first.
    void release()
    {
        std::vector<vstore::BlockRequest> all;
        {
            const std::scoped_lock lock{mutex_};
            std::swap(all, held_);
        }
        for (auto request = all.rbegin(); request != all.rend(); ++request) complete(*request);
    }
    void fail_next(ErrorCode code)
    {
        const std::scoped_lock lock{mutex_};
        failure_ = code;
    }

    [[nodiscard]] std::size_t held() const
    {
        const std::scoped_lock lock{mutex_};
        return held_.size();
    }
    [[nodiscard]] std::vector<Seen> seen() const { return locked(seen_); }
    [[nodiscard]] std::size_t most_in_flight() const { return locked(most_in_flight_); }
    [[nodiscard]] std::vector<std::byte>& disk() { return disk_; }

  private:
    template <typename T>
    [[nodiscard]] T locked(const T& value) const
    {
        const std::scoped_lock lock{mutex_};
        return value;
    }
    void check(const vstore::BlockRequest& request) const
    {
        std::uint64_t sum = 0;
        for (const auto& piece : request.data) sum += piece.iov_len;
        const bool transfers = request.kind == vstore::BlockKind::kRead || request.kind == vstore::BlockKind::kWrite;
        SPLITVISOR_CHECK(sum == (transfers ? request.length : 0));
        SPLITVISOR_CHECK(request.offset % vstore::kBlockAlignment == 0 && request.length % vstore::kBlockAlignment == 0);
        SPLITVISOR_CHECK((request.kind == vstore::BlockKind::kFlush) == (request.length == 0));
        SPLITVISOR_CHECK(request.offset <= disk_.size() && request.length <= disk_.size() - request.offset);
        SPLITVISOR_CHECK(!read_only_ || request.kind == vstore::BlockKind::kRead || request.kind == vstore::BlockKind::kFlush);
    }
    void complete(vstore::BlockRequest& request)
    {
        Status result;
        {
            const std::scoped_lock lock{mutex_};
            --in_flight_;
            if (failure_) {
                result = Error{*std::exchange(failure_, std::nullopt), "ordered by the test"};
            } else {
                move_data(request);
            }
        }
        request.done(std::move(result));
    }
    void move_data(const vstore::BlockRequest& request)
    {
        auto* at = disk_.data() + request.offset;
        switch (request.kind) {
        case vstore::BlockKind::kRead:
            for (const auto& piece : request.data) {
                std::memcpy(piece.iov_base, at, piece.iov_len);
                at += piece.iov_len;
            }
            break;
        case vstore::BlockKind::kWrite:
            for (const auto& piece : request.data) {
                std::memcpy(at, piece.iov_base, piece.iov_len);
                at += piece.iov_len;
            }
            break;
        case vstore::BlockKind::kDiscard:
        case vstore::BlockKind::kWriteZeroes: std::fill_n(at, request.length, std::byte{0}); break;
        case vstore::BlockKind::kFlush: break;
        }
    }
    void run()
    {
        std::mt19937 random{5};
        for (;;) {
            std::optional<vstore::BlockRequest> request;
            {
                std::unique_lock lock{mutex_};
                changed_.wait(lock, [this] { return ended_ || !held_.empty(); });
                if (ended_) return;
                std::swap(held_[random() % held_.size()], held_.back());
                request.emplace(std::move(held_.back()));
                held_.pop_back();
            }
            complete(*request);
        }
    }

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::byte> disk_;
    Mode mode_;
    bool read_only_;
    std::vector<vstore::BlockRequest> held_;
    std::vector<Seen> seen_;
    std::size_t in_flight_ = 0;
    std::size_t most_in_flight_ = 0;
    std::optional<ErrorCode> failure_;
    bool ended_ = false;
    Thread thread_;
};

}  // namespace splitvisor::fakes
