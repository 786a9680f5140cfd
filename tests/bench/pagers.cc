#include "tests/bench/pagers.h"

#include <chrono>
#include <thread>
#include <utility>

namespace splitvisor::bench {

Result<Pagers> make_pagers(const ept::EngineOptions& options, Backing& backing, std::unique_ptr<PlainRemote> remote)
{
    auto textbook = make_textbook_pager(options.memory, PageCount::of(options.excache), std::move(remote));
    if (!textbook) return textbook.error();
    auto store = backing.open(options.memory);
    if (!store) return store.error();
    auto ours = make_engine_memory(options, std::move(*store));
    if (!ours) return ours.error();
    stamp_all((*textbook)->memory());
    stamp_all((*ours)->memory());
    return Pagers{std::move(*ours), std::move(*textbook)};
}

void wait_until_idle_processors_halt() { std::this_thread::sleep_for(std::chrono::milliseconds{200}); }

}  // namespace splitvisor::bench
