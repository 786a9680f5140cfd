#include "tests/bench/paged_memory.h"

#include <unistd.h>

#include <cstring>

#include "base/log.h"

namespace splitvisor::bench {
namespace {

class EngineMemory final : public PagedMemory {
  public:
    EngineMemory(std::unique_ptr<remote_mem::PageStore> store, std::unique_ptr<ept::FaultEngine> engine)
        : store_{std::move(store)}, engine_{std::move(engine)}
    {
    }

    std::span<std::byte> memory() const override { return engine_->memory(); }

    PagingCounters counters() const override
    {
        const auto stats = engine_->stats();
        return {.remote_faults = stats.remote_faults,
                .fetched = stats.remote_pages,
                .written_back = stats.written_back,
                .room_stalls = stats.room_stalls};
    }

  private:
    std::unique_ptr<remote_mem::PageStore> store_;
    std::unique_ptr<ept::FaultEngine> engine_;
};

std::uint64_t mixed(std::uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

constexpr std::size_t kWords = kPageBytes / sizeof(std::uint64_t);
std::uint64_t first_word(Line line) { return mixed(line.value() + 1u); }

}  // namespace

void end_for_lost_memory(const Error& error)
{
    log_error("the benchmark's memory is lost", field("cause", error));
    ::_exit(1);
}

Result<std::unique_ptr<PagedMemory>> make_engine_memory(const ept::EngineOptions& options,
                                                        std::unique_ptr<remote_mem::PageStore> store)
{
    auto engine = ept::FaultEngine::start(options, *store, end_for_lost_memory);
    if (!engine) return engine.error();
    return std::unique_ptr<PagedMemory>{std::make_unique<EngineMemory>(std::move(store), std::move(*engine))};
}

// The kernel orders this with a pager's reading of the page, which ThreadSanitizer can't see.
[[gnu::no_sanitize("thread")]] void stamp_page(std::byte* page, Line line)
{
    auto* words = reinterpret_cast<std::uint64_t*>(page);
    const auto first = first_word(line);
    for (std::size_t i = 0; i < kWords; ++i) words[i] = first + i;
}

bool is_stamped(const std::byte* page, Line line)
{
    const auto* words = reinterpret_cast<const std::uint64_t*>(page);
    const auto first = first_word(line);
    std::uint64_t different = 0;
    for (std::size_t i = 0; i < kWords; ++i) different |= words[i] ^ (first + i);
    return different == 0;
}

void stamp_all(std::span<std::byte> memory)
{
    for (std::uint32_t i = 0; i < memory.size() >> kPageShift; ++i) {
        const Line line{i};
        stamp_page(memory.data() + line.byte_offset(), line);
    }
}

Line PageDice::throw_among(std::uint32_t lines)
{
    state_ += 0x9e3779b97f4a7c15u;
    return Line{static_cast<std::uint32_t>(mixed(state_) % lines)};
}

}  // namespace splitvisor::bench
