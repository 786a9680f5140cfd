#include "guests/ring3/sort.h"

#include "guests/ring3/task.h"

namespace splitvisor::ring3 {
namespace {

using Key = std::uint64_t;

void exchange(Key& a, Key& b)
{
    const auto key = a;
    a = b;
    b = key;
}

void insertion_sort(Key* first, Key* end)
{
    for (auto* next = first + 1; next < end; ++next) {
        const auto key = *next;
        auto* to = next;
        for (; to > first && to[-1] > key; --to) *to = to[-1];
        *to = key;
    }
}

Key median(Key a, Key b, Key c)
{
    if (a > b) exchange(a, b);
    if (b > c) b = c;
    return a > b ? a : b;
}

/// Hoare's partition. Afterwards all keys before the result are <= pivot and all from it on are >= pivot. Where at least
/// two keys are <= pivot and at least two are >= pivot, as with a median of three, no side is empty.
Key* divide(Key* first, Key* end, Key pivot)
{
    auto* low = first;
    auto* high = end - 1;
    while (true) {
        while (low < end && *low < pivot) ++low;
        while (high > first && *high > pivot) --high;
        if (low >= high) return low;
        exchange(*low++, *high--);
    }
}

/// Quicksort with a stack of its own: the larger side waits there, so it is never deeper than log2 of the keys.
void quick_sort(Key* first, Key* end)
{
    constexpr std::int64_t kSmall = 24;
    struct Range {
        Key* first;
        Key* end;
    };
    Range waiting[64];
    std::uint32_t depth = 0;
    while (true) {
        while (end - first > kSmall) {
            auto* const middle = divide(first, end, median(*first, first[(end - first) / 2], end[-1]));
            if (middle - first > end - middle) {
                waiting[depth++] = {first, middle};
                first = middle;
            } else {
                waiting[depth++] = {middle, end};
                end = middle;
            }
        }
        if (first < end) insertion_sort(first, end);
        if (depth == 0) return;
        first = waiting[--depth].first;
        end = waiting[depth].end;
    }
}

}  // namespace

void run_sort(const Task& task)
{
    const auto& parameters = task.parameters;
    auto* const head = reinterpret_cast<SortHead*>(task.arena);
    auto* const keys = reinterpret_cast<Key*>(task.arena + kPage);
    const auto count = key_count(parameters);
    const auto first = count * task.vcpu / parameters.vcpus;
    const auto end = count * (task.vcpu + 1) / parameters.vcpus;
    for (auto i = first; i < end; ++i) keys[i] = key_at(parameters, i);
    task.meet(Step::kPrepared);

    if (parameters.vcpus == 1) {
        quick_sort(keys, keys + count);
    } else {
        if (task.vcpu == 0) head->split = static_cast<std::uint64_t>(divide(keys, keys + count, kMiddleKey) - keys);
        task.meet(Step::kWithin);
        // The split is read from memory that another vCPU wrote and that was perhaps away meanwhile.
        const auto split = head->split < count ? head->split : count;
        if (task.vcpu == 0) quick_sort(keys, keys + split);
        if (task.vcpu == 1) quick_sort(keys + split, keys + count);
    }
    task.outcome.operations = end - first;
    task.meet(Step::kWorked);
}

}  // namespace splitvisor::ring3
