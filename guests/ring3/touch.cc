#include "guests/ring3/touch.h"

#include "guests/ring3/task.h"

namespace splitvisor::ring3 {
namespace {

void fill(const Task& task, std::uint64_t* words, PageRange range)
{
    for (auto page = range.first; page < range.first + range.count; ++page) {
        for (std::uint64_t word = 1; word < kWordsPerPage; ++word) {
            words[page * kWordsPerPage + word] = pattern_word(task.parameters.seed, page, word);
        }
    }
}

}  // namespace

void run_touch(const Task& task)
{
    const auto& parameters = task.parameters;
    auto* const words = reinterpret_cast<std::uint64_t*>(task.arena);
    fill(task, words, own_pages(parameters, task.vcpu));
    if (task.vcpu == 0) fill(task, words, shared_pages(parameters));
    task.meet(Step::kPrepared);

    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < parameters.operations; ++i) {
        const auto touch = touch_at(parameters, task.vcpu, i);
        auto* const page = words + touch.page * kWordsPerPage;
        if (parameters.access == Access::kRead) {
            sum += page[touch.word];
        } else {
            __atomic_fetch_add(page, 1, __ATOMIC_RELAXED);
        }
    }
    task.outcome.checksum = sum;
    task.outcome.operations = parameters.operations;
    task.meet(Step::kWorked);
}

}  // namespace splitvisor::ring3
