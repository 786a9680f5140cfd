#pragma once

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/log.h"
#include "remote-mem/page_store.h"

namespace splitvisor::fakes {

/// A PageStore in this process, with the version rules of the real one and faults that a test orders.
/// Thread-safe.
///
/// A write that is older than what is stored, or than the last drop, is ignored and counted; the same version
/// again is a repetition and accepted. Sessions must not outlive the store.
class MemoryPageStore final : public remote_mem::PageStore {
  public:
    struct Counts {
        std::uint64_t read_calls = 0;
        std::uint64_t pages_read = 0;  ///< present or not
        std::uint64_t write_calls = 0;
        std::uint64_t pages_written = 0;   ///< accepted
        std::uint64_t stale_pages = 0;     ///< writes and drops older than what is stored
        std::uint64_t repeated_pages = 0;  ///< accepted writes of the version that was there already
        std::uint64_t drop_calls = 0;
        std::uint64_t pages_dropped = 0;
        std::uint64_t failed_calls = 0;
    };

    Result<std::unique_ptr<remote_mem::PageSession>> open_session() override
    {
        return std::unique_ptr<remote_mem::PageSession>{std::make_unique<Session>(*this)};
    }

    /// Every call takes at least this long from now on.
    void set_delay_us(std::uint64_t delay_us)
    {
        const std::lock_guard lock{mutex_};
        delay_us_ = delay_us;
    }
    /// The next `calls` calls fail and change nothing.
    void fail_next(std::uint64_t calls, ErrorCode code) { order_failures(calls, code, false); }
    /// The next `calls` calls do their work and fail nevertheless: the acknowledgement got lost.
    void lose_acknowledgements(std::uint64_t calls, ErrorCode code = ErrorCode::kUnavailable)
    {
        order_failures(calls, code, true);
    }
    /// Calls wait, before they do anything, until unblock().
    void block()
    {
        const std::lock_guard lock{mutex_};
        blocked_ = true;
    }
    void unblock()
    {
        const std::lock_guard lock{mutex_};
        blocked_ = false;
        changed_.notify_all();
    }
    /// Waits until at least `calls` calls stand at the gate of block(); false where that takes too long.
    [[nodiscard]] bool wait_for_blocked(std::uint64_t calls, std::chrono::milliseconds patience)
    {
        std::unique_lock lock{mutex_};
        return changed_.wait_for(lock, patience, [&] { return waiting_ >= calls; });
    }

    [[nodiscard]] Counts counts() const
    {
        const std::lock_guard lock{mutex_};
        return counts_;
    }
    /// Bytes of the page, or nothing where the line is absent.
    [[nodiscard]] std::optional<std::vector<std::byte>> contents(Line line) const
    {
        const std::lock_guard lock{mutex_};
        const auto found = pages_.find(line);
        if (found == pages_.end() || found->second.bytes.empty()) return std::nullopt;
        return found->second.bytes;
    }
    /// The version of the last accepted write or drop; 0 where there was none.
    [[nodiscard]] Version version(Line line) const
    {
        const std::lock_guard lock{mutex_};
        const auto found = pages_.find(line);
        return found == pages_.end() ? Version{} : found->second.history.back();
    }
    /// The versions of all accepted writes and drops of the line, in the order of their arrival.
    [[nodiscard]] std::vector<Version> history(Line line) const
    {
        const std::lock_guard lock{mutex_};
        const auto found = pages_.find(line);
        return found == pages_.end() ? std::vector<Version>{} : found->second.history;
    }
    /// Lines that hold a page.
    [[nodiscard]] std::uint64_t present_pages() const
    {
        const std::lock_guard lock{mutex_};
        std::uint64_t present = 0;
        for (const auto& [line, page] : pages_) present += page.bytes.empty() ? 0u : 1u;
        return present;
    }

  private:
    struct Page {
        std::vector<std::byte> bytes;  ///< empty: dropped
        std::vector<Version> history;  ///< never empty once the page is in the map
    };
    struct Failures {
        std::uint64_t calls = 0;
        ErrorCode code = ErrorCode::kUnavailable;
        bool after_work = false;
    };

    class Session final : public remote_mem::PageSession {
      public:
        explicit Session(MemoryPageStore& store) : store_{store} {}

        Status read(std::span<remote_mem::PageRead> pages) override
        {
            return store_.call([&] { store_.read(pages); });
        }
        Status write(std::span<const remote_mem::PageWrite> pages) override
        {
            return store_.call([&] { store_.write(pages); });
        }
        Status drop(std::span<const Line> lines, Version version) override
        {
            return store_.call([&] { store_.drop(lines, version); });
        }

      private:
        MemoryPageStore& store_;
    };

    template <typename Work>
    Status call(Work work)
    {
        std::unique_lock lock{mutex_};
        if (blocked_) {
            ++waiting_;
            changed_.notify_all();
            changed_.wait(lock, [&] { return !blocked_; });
            --waiting_;
        }
        if (delay_us_ > 0) {
            const std::chrono::microseconds delay{delay_us_};
            lock.unlock();
            std::this_thread::sleep_for(delay);
            lock.lock();
        }
        if (failures_.calls == 0) {
            work();
            return {};
        }
        --failures_.calls;
        ++counts_.failed_calls;
        if (failures_.after_work) work();
        return Error{failures_.code, "a failure that the test ordered"};
    }

    void order_failures(std::uint64_t calls, ErrorCode code, bool after_work)
    {
        const std::lock_guard lock{mutex_};
        failures_ = {calls, code, after_work};
    }

    void read(std::span<remote_mem::PageRead> pages)
    {
        ++counts_.read_calls;
        counts_.pages_read += pages.size();
        for (auto& page : pages) {
            const auto found = pages_.find(page.line);
            page.present = found != pages_.end() && !found->second.bytes.empty();
            if (!page.present) continue;
            page.version = found->second.history.back();
            std::memcpy(page.into, found->second.bytes.data(), kPageBytes);
        }
    }

    void write(std::span<const remote_mem::PageWrite> pages)
    {
        ++counts_.write_calls;
        for (const auto& page : pages) {
            if (!accept(page.line, page.version)) continue;
            ++counts_.pages_written;
            pages_[page.line].bytes.assign(page.from, page.from + kPageBytes);
        }
    }

    void drop(std::span<const Line> lines, Version version)
    {
        ++counts_.drop_calls;
        for (const auto line : lines) {
            if (!accept(line, version)) continue;
            ++counts_.pages_dropped;
            pages_[line].bytes.clear();
        }
    }

    bool accept(Line line, Version version)
    {
        SPLITVISOR_CHECK(version > Version{});
        auto& history = pages_[line].history;
        if (!history.empty() && version < history.back()) {
            ++counts_.stale_pages;
            return false;
        }
        if (!history.empty() && version == history.back()) {
            ++counts_.repeated_pages;
            return true;
        }
        history.push_back(version);
        return true;
    }

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool blocked_ = false;
    std::uint64_t waiting_ = 0;
    std::uint64_t delay_us_ = 0;
    Failures failures_;
    Counts counts_;
    std::map<Line, Page> pages_;
};

}  // namespace splitvisor::fakes
