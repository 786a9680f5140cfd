// pcomponentd: the process monitor of one pComponent.

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/text.h"
#include "controller/pcomponentd/process_monitor.h"
#include "controller/wire/monitor.h"

namespace splitvisor::controller {
namespace {

struct Flags {
    std::string run_dir;
    std::string kernels;
    std::string vmm;
    std::string keeper;
    std::string memory;
    std::uint32_t vcpus = 0;
};

/// The keeper lies beside this program, unless a flag says otherwise.
std::string keeper_path(const Flags& flags)
{
    if (!flags.keeper.empty()) return flags.keeper;
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    return error ? std::string{"vnode-keeper"} : (self.parent_path() / "vnode-keeper").string();
}

std::string absolute(const std::string& path)
{
    std::error_code error;
    const auto whole = std::filesystem::absolute(path, error).lexically_normal();
    std::string text = error ? path : whole.string();
    while (text.size() > 1 && text.back() == '/') text.pop_back();
    return text;
}

Result<ProcessMonitorOptions> options_of(const Flags& flags)
{
    ProcessMonitorOptions options;
    options.run_dir = absolute(flags.run_dir);
    options.kernels_dir = absolute(flags.kernels);
    options.vmm = absolute(flags.vmm);
    options.keeper = keeper_path(flags);
    // vCPUs share cores: four for each thread of the host unless the operator says otherwise.
    options.vcpus = flags.vcpus != 0 ? flags.vcpus : 4 * std::max(1u, std::thread::hardware_concurrency());
    options.memory = ByteCount{static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                               static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))};
    if (!flags.memory.empty()) {
        const auto memory = parse_size(flags.memory);
        if (!memory) return memory.error().in("--memory");
        options.memory = *memory;
    }
    for (const std::string& program : {options.vmm, options.keeper}) {
        if (::access(program.c_str(), X_OK) != 0) return Error::from_errno(program);
    }
    if (::access(options.kernels_dir.c_str(), R_OK | X_OK) != 0) return Error::from_errno(options.kernels_dir);
    return options;
}

Status serve(const Flags& flags, wire::AgentOptions agent)
{
    const auto options = options_of(flags);
    if (!options) return options.error();
    const auto signals = wire::take_ending_signals();
    if (!signals) return signals.error();
    // Keepers are never waited for; SA_NOCLDWAIT lets them go without leaving zombies.
    struct sigaction children{};
    children.sa_handler = SIG_DFL;
    children.sa_flags = SA_NOCLDWAIT;
    ::sigaction(SIGCHLD, &children, nullptr);
    auto monitor = ProcessMonitor::create(*options);
    if (!monitor) return monitor.error();
    agent.kind = wire::ComponentKind::kProcessor;
    agent.usage = [&monitor] { return (*monitor)->usage(); };
    agent.process = monitor->get();
    return wire::stay_enrolled(agent, *signals, [&](wire::Agent* enrolled) { (*monitor)->report_to(enrolled); });
}

}  // namespace
}  // namespace splitvisor::controller

int main(int argc, char** argv)
{
    namespace controller = splitvisor::controller;
    ::umask(0077);
    controller::Flags flags;
    CLI::App app{"The process monitor: runs vNodes on this machine.", "pcomponentd"};
    app.add_option("--run-dir", flags.run_dir, "folder for the vNodes' sockets, logs and configurations")->required();
    app.add_option("--kernels", flags.kernels, "folder of the kernels and initrds that vNodes can start")->required();
    app.add_option("--vmm", flags.vmm, "path of vnode-vmm")->required();
    app.add_option("--keeper", flags.keeper, "path of vnode-keeper (default: beside this program)");
    app.add_option("--vcpus", flags.vcpus, "vCPUs to give away (default: four for each thread of the host)")
        ->check(CLI::Range(1, 100000));
    app.add_option("--memory", flags.memory, "memory to give away to ExCaches (default: all of the host's)");
    return splitvisor::wire::monitor_main(
        app, argc, argv, [&](auto agent) { return controller::serve(flags, std::move(agent)); });
}
