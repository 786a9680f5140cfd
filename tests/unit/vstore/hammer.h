#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <random>
#include <vector>

#include "fixtures.h"

namespace splitvisor::vstore {

/// Keeps many requests in flight on a disk, overlapping writes among them, and checks every byte against a model: the
/// disk holds what the changes give in the order of their submission, whatever happens to the connection meanwhile.
class Hammer {
  public:
    Hammer(BlockBackend& disk, std::uint64_t seed)
        : disk_{disk}, random_{seed}, model_(disk.capacity().value())
    {
    }

    /// Submits `count` requests, at most `depth` in flight, and waits for all of them.
    void run(int count, std::size_t depth)
    {
        for (int i = 0; i < count; ++i) {
            wait_until_at_most(depth - 1);
            submit_one();
        }
        wait_until_at_most(0);
    }

    /// Reads the whole disk.
    void check_everything()
    {
        std::vector<std::byte> content(model_.size());
        require_ok(SyncDisk{disk_}.read(0, content));
        BOOST_REQUIRE(content == model_);
    }

    [[nodiscard]] int errors() const { return errors_; }
    [[nodiscard]] int checked_reads() const { return checked_reads_; }

  private:
    struct Work {
        BlockKind kind;
        std::uint64_t offset;
        std::vector<std::byte> bytes;
        std::vector<std::byte> expected;  ///< reads that overlap no change in flight
        std::vector<iovec> vectors;
        bool done = false;
    };

    void wait_until_at_most(std::size_t limit)
    {
        std::unique_lock lock{mutex_};
        const bool reached = completed_.wait_for(lock, std::chrono::seconds{120}, [&] {
            while (!works_.empty() && works_.front().done) works_.pop_front();
            return static_cast<std::size_t>(std::ranges::count(works_, false, &Work::done)) <= limit;
        });
        BOOST_REQUIRE_MESSAGE(reached, "requests got lost: " << works_.size());
    }

    static bool overlap(const Work& work, std::uint64_t offset, std::size_t length)
    {
        return work.offset < offset + length && offset < work.offset + work.bytes.size();
    }

    void cut_into_vectors(Work& work)
    {
        for (std::size_t at = 0; at < work.bytes.size();) {
            const auto length = std::min<std::size_t>(1 + random_() % 200'000, work.bytes.size() - at);
            work.vectors.push_back({work.bytes.data() + at, length});
            at += length;
        }
    }

    void submit_one()
    {
        const auto sectors = random_() % 20 == 0 ? 1 + random_() % 3000 : 1 + random_() % 64;
        const auto length = sectors * 512;
        const auto offset = random_() % (model_.size() / 512 - sectors) * 512;
        const auto kinds = std::array{BlockKind::kWrite, BlockKind::kWrite, BlockKind::kWrite,   BlockKind::kRead,
                                      BlockKind::kRead,  BlockKind::kFlush, BlockKind::kDiscard, BlockKind::kWriteZeroes};
        const auto kind = kinds[random_() % kinds.size()];
        const auto range = std::span{model_}.subspan(offset, length);

        std::unique_lock lock{mutex_};
        // A read in flight keeps its expectation: no change may overlap it.
        const bool beside_other = std::ranges::any_of(works_, [&](const Work& work) {
            return !work.done && overlap(work, offset, length) &&
                   (kind == BlockKind::kRead || work.kind == BlockKind::kRead);
        });
        if (beside_other) return;
        auto& work = works_.emplace_back(Work{kind, offset, {}, {}, {}, false});
        if (kind != BlockKind::kFlush) work.bytes.resize(length);
        if (kind == BlockKind::kWrite) {
            work.bytes = pattern(length, random_());
            std::ranges::copy(work.bytes, range.begin());
        } else if (kind == BlockKind::kRead) {
            work.expected.assign(range.begin(), range.end());
        } else if (kind != BlockKind::kFlush) {
            std::ranges::fill(range, std::byte{0});
        }
        if (kind == BlockKind::kRead || kind == BlockKind::kWrite) cut_into_vectors(work);
        lock.unlock();
        const bool flush = kind == BlockKind::kFlush;
        disk_.submit({kind, flush ? 0 : offset, flush ? 0 : length, work.vectors,
                      [this, &work](const Status& status) { complete(work, status); }});
    }

    void complete(Work& work, const Status& status)
    {
        const std::lock_guard lock{mutex_};
        if (!status) ++errors_;
        if (work.kind == BlockKind::kRead) {
            ++checked_reads_;
            if (work.bytes != work.expected) ++errors_;
        }
        if (work.done) ++errors_;
        work.done = true;
        completed_.notify_all();
    }

    BlockBackend& disk_;
    std::mt19937_64 random_;
    std::vector<std::byte> model_;
    std::mutex mutex_;
    std::condition_variable completed_;
    std::deque<Work> works_;
    int errors_ = 0;
    int checked_reads_ = 0;
};

}  // namespace splitvisor::vstore
