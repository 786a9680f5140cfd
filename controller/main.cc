// vnode-controller: GPM, GMM and GSM, the REST API, and the listener that components attach to.

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "base/log.h"
#include "base/text.h"
#include "controller/controller.h"

namespace splitvisor::controller {
namespace {

/// Text options as CLI11 fills them in.
struct Flags {
    std::string state;
    std::string listen = "127.0.0.1:7770";
    std::string listen_control = "127.0.0.1:7771";
    std::string region_size = "1G";
    std::uint64_t heartbeat_limit_ms = 5000;
};

Result<ControllerOptions> options_of(const Flags& flags)
{
    ControllerOptions options;
    options.state_dir = flags.state;
    options.listen_control = flags.listen_control;
    options.heartbeat_limit_ms = flags.heartbeat_limit_ms;
    const auto colon = flags.listen.rfind(':');
    if (colon == std::string::npos) return Error{ErrorCode::kInvalid, "--listen: '" + flags.listen + "' is no HOST:PORT"};
    const auto port = parse_number(flags.listen.substr(colon + 1));
    if (!port || *port > 65535) return Error{ErrorCode::kInvalid, "--listen: '" + flags.listen + "' has no valid port"};
    options.listen_address = flags.listen.substr(0, colon);
    options.listen_port = static_cast<std::uint16_t>(*port);
    const auto region_size = parse_size(flags.region_size);
    if (!region_size) return region_size.error().in("--region-size");
    if (region_size->value() < kMiB || region_size->value() % kMiB != 0) {
        return Error{ErrorCode::kInvalid, "--region-size must be a multiple of 1 MiB"};
    }
    options.region_size = *region_size;
    return options;
}

/// Waits for SIGTERM or SIGINT, which every thread has blocked.
void wait_for_end(const sigset_t& signals)
{
    int signal = 0;
    ::sigwait(&signals, &signal);
    log_info("stopping", field("signal", static_cast<std::uint64_t>(signal)));
}

int run(const Flags& flags)
{
    const auto options = options_of(flags);
    if (!options) {
        std::fprintf(stderr, "vnode-controller: %s\n", options.error().message().c_str());
        return 2;
    }
    ::umask(0077);
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const auto controller = Controller::start(*options);
    if (!controller) {
        std::fprintf(stderr, "vnode-controller: %s\n", controller.error().message().c_str());
        return 1;
    }
    log_info("listening", field("rest_port", std::uint64_t{(*controller)->rest_port()}) +
                              field("control_port", std::uint64_t{(*controller)->control_port()}));
    wait_for_end(signals);
    return 0;
}

}  // namespace
}  // namespace splitvisor::controller

int main(int argc, char** argv)
{
    splitvisor::start_log("vnode-controller");
    splitvisor::controller::Flags flags;
    CLI::App app{"The Splitvisor controller", "vnode-controller"};
    app.set_version_flag("--version", SPLITVISOR_VERSION);
    app.add_option("--state", flags.state, "Folder of the database and the token files")->required();
    app.add_option("--listen", flags.listen, "HOST:PORT of the REST API")->capture_default_str();
    app.add_option("--listen-control", flags.listen_control, "HOST:PORT that components attach to")
        ->capture_default_str();
    app.add_option("--region-size", flags.region_size, "Size of a vRegion")->capture_default_str();
    app.add_option("--heartbeat-limit-ms", flags.heartbeat_limit_ms, "A component silent for longer counts as away")
        ->check(CLI::Range(200, 600000))
        ->capture_default_str();
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        std::fprintf(stderr, "vnode-controller: %s\n", error.what());
        return 2;
    }
    return splitvisor::controller::run(flags);
}
