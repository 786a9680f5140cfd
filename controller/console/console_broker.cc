#include "controller/console/console_broker.h"

#include <vector>

#include "base/clock.h"

namespace splitvisor::controller {

namespace {
constexpr std::uint64_t kOpenMs = 5000;
}

Result<std::shared_ptr<BytePipe>> ConsoleBroker::open(ComponentHub& hub, const std::string& component,
                                                      const std::string& vnode)
{
    const std::string session = new_capability();
    auto pipe = std::make_shared<BytePipe>();
    close_stale();
    {
        const std::lock_guard lock{mutex_};
        if (waiting_.size() >= kMaxWaiting) return Error{ErrorCode::kNoRoom, "too many consoles are being opened"};
        waiting_.emplace(session, Waiting{pipe, now_ms()});
    }
    const auto opened = hub.call(component, OpenConsole{vnode, session}, kOpenMs);
    if (!opened) {
        const std::lock_guard lock{mutex_};
        waiting_.erase(session);
        return opened.error();
    }
    return pipe;
}

std::shared_ptr<BytePipe> ConsoleBroker::arrived(const std::string& session)
{
    const std::lock_guard lock{mutex_};
    const auto found = waiting_.find(session);
    if (found == waiting_.end()) return nullptr;
    auto pipe = found->second.pipe;
    waiting_.erase(found);
    return pipe;
}

void ConsoleBroker::close_all()
{
    std::map<std::string, Waiting> waiting;
    {
        const std::lock_guard lock{mutex_};
        waiting.swap(waiting_);
    }
    for (const auto& [session, entry] : waiting) entry.pipe->close("the controller is stopping");
}

void ConsoleBroker::close_stale()
{
    std::vector<std::shared_ptr<BytePipe>> stale;
    {
        const std::lock_guard lock{mutex_};
        std::erase_if(waiting_, [this, &stale](const auto& entry) {
            const bool is_stale = now_ms() >= entry.second.since_ms + arrival_ms_;
            if (is_stale) stale.push_back(entry.second.pipe);
            return is_stale;
        });
    }
    for (const auto& pipe : stale) pipe->close("the pComponent did not open the console");
}

}  // namespace splitvisor::controller
