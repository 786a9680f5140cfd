#include "checker/workloads.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "base/thread.h"

namespace splitvisor::checker {

namespace {

Status verify_all(Work& work)
{
    for (std::uint64_t group = 0; group < work.arena.groups(); ++group) {
        if (auto verified = work.arena.verify_group(GroupIndex{group}); !verified) return verified;
        work.report.tick();
    }
    return {};
}

/// Runs the body in as many threads as asked for and gives back the first failure, if any.
Status in_threads(Work& work, const std::function<Status(Random&)>& body)
{
    std::vector<Status> results(work.options.threads);
    {
        std::vector<Thread> threads;
        for (Status& result : results) {
            threads.emplace_back("checker", [&body, &result, random = Random{work.random.next()}]() mutable {
                result = body(random);
            });
        }
    }
    const auto failed = std::ranges::find_if(results, [](const Status& result) { return !result.ok(); });
    return failed == results.end() ? Status{} : *failed;
}

/// Eight to a page: many pages, and several writers on each.
constexpr std::size_t kCountersPerPage = 8;
constexpr std::uint64_t kCounterPages = 1024;
constexpr std::uint64_t kIncrementsPerThread = 200'000;

std::uint64_t& counter(const Mapping& memory, std::uint64_t index)
{
    const std::uint64_t offset = index * (kPageBytes / kCountersPerPage);
    return *reinterpret_cast<std::uint64_t*>(memory.data() + offset);
}

}  // namespace

Status run_fill(Work& work)
{
    for (std::uint64_t group = 0; group < work.arena.groups(); ++group) {
        if (auto written = work.arena.rewrite_group(GroupIndex{group}, work.random); !written) return written;
        work.report.tick();
    }
    return verify_all(work);
}

Status run_random(Work& work)
{
    // As many touches as the arena has pages, over all threads.
    const std::uint64_t touches = work.arena.pages() / work.options.threads;
    const auto touch = [&](Random& random) -> Status {
        for (std::uint64_t done = 0; done < touches; done += work.options.touches_per_visit) {
            if (auto touched = work.arena.touch_group(GroupIndex{random.below(work.arena.groups())}, random);
                !touched)
                return touched;
            work.report.tick();
        }
        return {};
    };
    if (auto touched = in_threads(work, touch); !touched) return touched;
    return verify_all(work);
}

Status run_atomic(Work& work)
{
    auto memory = Mapping::anonymous(PageCount{std::min(kCounterPages, work.arena.pages())}.bytes());
    if (!memory) return memory.error().in("no memory for the counters");
    const std::uint64_t counters = memory->size() / kPageBytes * kCountersPerPage;
    const auto raise = [&](Random& random) -> Status {
        for (std::uint64_t i = 0; i < kIncrementsPerThread; ++i) {
            std::atomic_ref{counter(*memory, random.below(counters))}.fetch_add(1, std::memory_order_relaxed);
        }
        work.report.tick();
        return {};
    };
    if (auto raised = in_threads(work, raise); !raised) return raised;

    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < counters; ++i) sum += counter(*memory, i);
    work.report.count_verified(memory->size() / kPageBytes);
    const std::uint64_t expected = kIncrementsPerThread * work.options.threads;
    if (sum != expected) {
        work.report.mismatch("counters add up to " + std::to_string(sum) + ", expected " +
                             std::to_string(expected));
    }
    return {};
}

}  // namespace splitvisor::checker
