#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <string>

#include "base/log.h"
#include "base/text.h"
#include "vmm/config.h"
#include "vmm/machine.h"
#include "vmm/vnode.h"

namespace splitvisor::vmm {
namespace {

struct Options {
    std::string config_path;
    bool check_only = false;
    bool local_memory = false;
    bool verbose = false;
};

int fail(const Error& error)
{
    std::fprintf(stderr, "vnode-vmm: %s\n", error.message().c_str());
    return static_cast<int>(ExitStatus::kStartFailed);
}

/// Signals that end the process are waited for by the main thread alone.
void prepare_signals()
{
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

int run(const Options& options)
{
    constexpr ByteCount kLargestConfig{4 * kMiB};
    const auto memory_kind = options.local_memory ? MemoryKind::kLocal : MemoryKind::kRemote;
    const auto text = read_file(options.config_path, kLargestConfig);
    if (!text) return fail(text.error());
    auto config = parse_config(*text, memory_kind);
    if (!config) return fail(config.error().in(options.config_path));
    if (options.check_only) return 0;
    prepare_signals();
    ::umask(0077);
    start_log("vnode-vmm/" + config->name, options.verbose ? LogLevel::kDebug : LogLevel::kInfo);
    auto vnode = Vnode::open(std::move(*config), memory_kind);
    if (!vnode) return fail(vnode.error());
    (*vnode)->run();
}

}  // namespace
}  // namespace splitvisor::vmm

int main(int argc, char** argv)
{
    using namespace splitvisor::vmm;
    CLI::App app{"Runs one vNode: a Linux guest whose memory and disks live on other machines."};
    Options options;
    app.add_option("--config", options.config_path, "what to run (JSON; see vmm/README.md)")->required();
    app.add_flag("--check-config", options.check_only, "only check the configuration");
    app.add_flag("--local-memory", options.local_memory,
                 "debugging aid: all memory local, no ExCache, no regions needed");
    app.add_flag("--verbose", options.verbose, "log what the guest probes for, too");
    app.set_version_flag("--version", "vnode-vmm " SPLITVISOR_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : static_cast<int>(ExitStatus::kUsage);
    }
    return run(options);
}
