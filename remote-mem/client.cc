#include "remote-mem/client.h"

#include "remote-mem/placement.h"
#include "remote-mem/session.h"

namespace splitvisor::remote_mem {

Result<std::unique_ptr<RemoteMemory>> RemoteMemory::create(const RemoteMemoryOptions& options)
{
    auto placement = Placement::create(options);
    if (!placement) return placement.error().in("remote memory");
    return std::unique_ptr<RemoteMemory>{new RemoteMemory{std::move(*placement)}};
}

RemoteMemory::RemoteMemory(std::unique_ptr<Placement> placement) : placement_{std::move(placement)} {}

RemoteMemory::~RemoteMemory() = default;

Result<std::unique_ptr<PageSession>> RemoteMemory::open_session()
{
    auto session = std::make_unique<Session>(*placement_);
    SPLITVISOR_TRY(session->check_access());
    return std::unique_ptr<PageSession>{std::move(session)};
}

RemoteMemoryStats RemoteMemory::stats() const
{
    const auto& counters = placement_->counters();
    return {
        .requests = counters.requests.load(),
        .pages_read = counters.pages_read.load(),
        .pages_written = counters.pages_written.load(),
        .pages_dropped = counters.pages_dropped.load(),
        .stale_pages = counters.stale_pages.load(),
        .connects = counters.connects.load(),
        .failures = counters.failures.load(),
        .corrupt_pages = counters.corrupt_pages.load(),
        .lost = placement_->lost(),
    };
}

}  // namespace splitvisor::remote_mem
