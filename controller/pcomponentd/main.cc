// pcomponentd: the process monitor of one pComponent.

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
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

constexpr std::uint64_t kPatienceMs = 2000;

struct Flags {
    std::string name;
    std::string controller;
    std::string token_file;
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
    if (!is_valid_name(flags.name)) return Error{ErrorCode::kInvalid, "--name: '" + flags.name + "' is not a valid name"};
    for (const std::string& program : {options.vmm, options.keeper}) {
        if (::access(program.c_str(), X_OK) != 0) return Error::from_errno(program);
    }
    if (::access(options.kernels_dir.c_str(), R_OK | X_OK) != 0) return Error::from_errno(options.kernels_dir);
    return options;
}

/// True once SIGTERM or SIGINT, which every thread has blocked, arrives.
bool is_over(const sigset_t& signals, std::uint64_t wait_ms)
{
    const timespec timeout{static_cast<time_t>(wait_ms / 1000), static_cast<long>(wait_ms % 1000) * 1'000'000};
    return ::sigtimedwait(&signals, nullptr, &timeout) > 0;
}

/// Waits for the controller as long as it takes: the vNodes run without it. Null: it is over before that.
Result<std::unique_ptr<wire::Agent>> attach(const wire::AgentOptions& options, const sigset_t& signals)
{
    for (;;) {
        auto agent = wire::start_agent(options, kPatienceMs);
        if (agent || agent.error().code() != ErrorCode::kUnavailable) return agent;
        log_warning("controller_away", field("error", agent.error()));
        if (is_over(signals, 500)) return std::unique_ptr<wire::Agent>{};
    }
}

Status serve(const Flags& flags, const sigset_t& signals)
{
    const auto options = options_of(flags);
    if (!options) return options.error();
    const auto token = wire::read_token(flags.token_file);
    if (!token) return token.error();
    auto monitor = ProcessMonitor::create(*options);
    if (!monitor) return monitor.error();
    wire::AgentOptions agent_options;
    agent_options.kind = wire::ComponentKind::kProcessor;
    agent_options.name = flags.name;
    agent_options.controller = flags.controller;
    agent_options.token = *token;
    agent_options.usage = [&monitor] { return (*monitor)->usage(); };
    agent_options.process = monitor->get();
    const auto agent = attach(agent_options, signals);
    if (!agent) return agent.error();
    if (!*agent) return {};
    (*monitor)->report_to(agent->get());
    while (!is_over(signals, 60'000)) {
    }
    (*monitor)->report_to(nullptr);
    log_info("stopping");
    return {};
}

int run(const Flags& flags)
{
    ::umask(0077);
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    // Keepers are never waited for; SA_NOCLDWAIT lets them go without leaving zombies.
    struct sigaction children{};
    children.sa_handler = SIG_DFL;
    children.sa_flags = SA_NOCLDWAIT;
    ::sigaction(SIGCHLD, &children, nullptr);
    if (auto status = serve(flags, signals); !status) {
        std::fprintf(stderr, "pcomponentd: %s\n", status.error().message().c_str());
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace splitvisor::controller

int main(int argc, char** argv)
{
    splitvisor::start_log("pcomponentd");
    splitvisor::controller::Flags flags;
    CLI::App app{"The process monitor of a Splitvisor pComponent", "pcomponentd"};
    app.set_version_flag("--version", SPLITVISOR_VERSION);
    app.add_option("--name", flags.name, "Name of this pComponent")->required();
    app.add_option("--controller", flags.controller, "HOST:PORT of the controller's control listener")->required();
    app.add_option("--token-file", flags.token_file, "File with the enrolment token")->required();
    app.add_option("--run-dir", flags.run_dir, "Folder for the vNodes' sockets, logs and configurations")->required();
    app.add_option("--kernels", flags.kernels, "Folder of the kernels and initrds that vNodes can start")->required();
    app.add_option("--vmm", flags.vmm, "Path of vnode-vmm")->required();
    app.add_option("--keeper", flags.keeper, "Path of vnode-keeper (default: beside this program)");
    app.add_option("--vcpus", flags.vcpus, "vCPUs to give away (default: four for each thread of the host)")
        ->check(CLI::Range(1, 100000));
    app.add_option("--memory", flags.memory, "Memory to give away to ExCaches (default: all of the host's)");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        std::fprintf(stderr, "pcomponentd: %s\n", error.what());
        return 2;
    }
    return splitvisor::controller::run(flags);
}
