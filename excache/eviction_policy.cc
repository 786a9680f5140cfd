#include "excache/eviction_policy.h"

#include <algorithm>

#include "base/log.h"

namespace splitvisor::excache {

namespace {
constexpr std::uint8_t kMaxUses = 3;
constexpr std::uint32_t kSmallShare = 10;  // one tenth, as in the paper
}  // namespace

EvictionPolicy::EvictionPolicy(std::uint32_t lines, std::uint32_t capacity)
    : small_{lines},
      main_{lines},
      small_target_{std::max(capacity / kSmallShare, std::uint32_t{1})},
      ghost_window_{capacity},
      places_(lines, Place::kNowhere),
      uses_(lines),
      evicted_at_(lines)
{
}

void EvictionPolicy::Queue::push(Line line)
{
    SPLITVISOR_CHECK(count < ring.size());
    const std::uint64_t tail = (std::uint64_t{head} + count) % ring.size();
    ring[tail] = line.value();
    ++count;
}

Line EvictionPolicy::Queue::pop()
{
    SPLITVISOR_CHECK(count > 0);
    const Line line{ring[head]};
    head = static_cast<std::uint32_t>((std::uint64_t{head} + 1) % ring.size());
    --count;
    return line;
}

void EvictionPolicy::admit(Line line, bool was_victim)
{
    const auto index = line.value();
    if (was_victim && uses_[index] < kMaxUses) ++uses_[index];
    if (places_[index] != Place::kNowhere) return;

    // The counter wraps after 2^32 evictions (16 TiB of traffic); a wrong ghost then costs one misplaced line.
    const bool is_ghost = evicted_at_[index] != 0 && evictions_ - evicted_at_[index] < ghost_window_;
    if (was_victim || is_ghost) {
        places_[index] = Place::kMain;
        main_.push(line);
    } else {
        places_[index] = Place::kSmall;
        small_.push(line);
    }
}

std::optional<Line> EvictionPolicy::pick()
{
    if (small_.count > small_target_ || main_.count == 0) {
        if (small_.count == 0) return std::nullopt;
        const Line line = small_.pop();
        places_[line.value()] = Place::kNowhere;
        return line;
    }
    return pick_from_main();
}

std::optional<Line> EvictionPolicy::pick_from_main()
{
    // Each round lowers one line's uses, so this ends after at most kMaxUses rounds through the queue.
    while (true) {
        const Line line = main_.pop();
        auto& uses = uses_[line.value()];
        if (uses == 0) {
            places_[line.value()] = Place::kNowhere;
            return line;
        }
        --uses;
        main_.push(line);
    }
}

void EvictionPolicy::evicted(Line line)
{
    if (++evictions_ == 0) ++evictions_;
    evicted_at_[line.value()] = evictions_;
}

}  // namespace splitvisor::excache
