#include "controller/vnodes/reaper.h"

#include <chrono>
#include <set>
#include <vector>

#include "base/log.h"

namespace splitvisor::controller {

namespace {
constexpr std::chrono::milliseconds kRoundInterval{2000};
}

Reaper::Reaper(Catalog& catalog, ComponentHub& hub, MemoryManager& memory, StorageManager& storage)
    : catalog_{catalog}, hub_{hub}, memory_{memory}, storage_{storage}, thread_{"reaper", [this] { run(); }}
{
}

Reaper::~Reaper()
{
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void Reaper::wake()
{
    {
        const std::lock_guard lock{mutex_};
        awake_ = true;
    }
    changed_.notify_all();
}

void Reaper::run()
{
    for (;;) {
        {
            std::unique_lock lock{mutex_};
            changed_.wait_for(lock, kRoundInterval, [this] { return stopping_ || awake_; });
            if (stopping_) return;
            awake_ = false;
        }
        work();
    }
}

void Reaper::work()
{
    const std::lock_guard work_lock{work_mutex_};
    const auto deletions = catalog_.read([](const Contents& contents) { return contents.deletions; });
    std::set<std::string> hopeless;
    std::vector<std::uint64_t> done;
    for (const auto& [number, deletion] : deletions) {
        if (hopeless.contains(deletion.component) || !hub_.find(deletion.component)) continue;
        if (auto status = remove(deletion); status || status.error().code() == ErrorCode::kNotFound) {
            done.push_back(number);
        } else {
            hopeless.insert(deletion.component);
            log_warning("deletion_put_off", field("component", std::string_view{deletion.component}) +
                                                field("number", number) + field("error", status.error()));
        }
    }
    if (done.empty()) return;
    const auto updated = catalog_.update([&done](Draft& draft) -> Status {
        for (const std::uint64_t number : done) draft.erase_deletion(number);
        return {};
    });
    if (!updated) log_error("state_not_saved", field("error", updated.error()));
}

Status Reaper::remove(const DeletionRecord& deletion)
{
    switch (deletion.what) {
    case DeletionRecord::What::kRegion: return memory_.remove(deletion.component, RegionId{deletion.number});
    case DeletionRecord::What::kVolume: return storage_.remove(deletion.component, VolumeId{deletion.number});
    }
    return {};
}

}  // namespace splitvisor::controller
