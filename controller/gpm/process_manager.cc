#include "controller/gpm/process_manager.h"

namespace splitvisor::controller {

namespace {

constexpr std::uint64_t kStartMs = 120'000;
constexpr std::uint64_t kStopExtraMs = 15'000;
constexpr std::uint64_t kControlMs = 5'000;
constexpr std::uint64_t kForgetMs = 5'000;

std::uint64_t left_of(std::uint64_t all, std::uint64_t taken)
{
    return all > taken ? all - taken : 0;
}

Status status_of(const Result<std::string>& result)
{
    if (!result) return result.error();
    return {};
}

}  // namespace

std::vector<ProcessorOffer> ProcessManager::offers(const Contents& contents, const std::string& except) const
{
    std::vector<ProcessorOffer> offers;
    for (const auto& [name, component] : contents.components) {
        if (component.kind != ComponentKind::kProcessor) continue;
        ProcessorOffer offer;
        offer.name = name;
        if (const auto status = hub_.find(name)) {
            std::uint64_t vcpus = 0;
            std::uint64_t excaches = 0;
            for (const auto& [vnode_name, vnode] : contents.vnodes) {
                if (vnode.pcomponent != name || vnode_name == except) continue;
                vcpus += vnode.vcpus;
                excaches += vnode.excache.value();
            }
            offer.connected = true;
            offer.free_vcpus = left_of(status->detail.number("vcpus"), vcpus);
            offer.free_memory = ByteCount{left_of(status->capacity.value(), excaches)};
            offer.kernels = status->detail.texts("kernels");
        }
        offers.push_back(std::move(offer));
    }
    return offers;
}

Status ProcessManager::start(const std::string& component, const std::string& vnode, const std::string& spec_json)
{
    return status_of(hub_.call(component, StartVnode{vnode, spec_json}, kStartMs));
}

Status ProcessManager::stop(const std::string& component, const std::string& vnode, std::uint64_t grace_ms)
{
    return status_of(hub_.call(component, StopVnode{vnode, grace_ms}, grace_ms + kStopExtraMs));
}

Result<std::string> ProcessManager::control(const std::string& component, const std::string& vnode,
                                            const std::string& command_json)
{
    return hub_.call(component, ControlVnode{vnode, command_json}, kControlMs);
}

Status ProcessManager::forget(const std::string& component, const std::string& vnode)
{
    return status_of(hub_.call(component, ForgetVnode{vnode}, kForgetMs));
}

}  // namespace splitvisor::controller
