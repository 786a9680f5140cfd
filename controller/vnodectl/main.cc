// vnodectl: the command line, a client of the REST API like everything else.

#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <string>

#include "base/text.h"
#include "controller/vnodectl/commands.h"
#include "controller/vnodectl/format.h"

namespace splitvisor::vnodectl {
namespace {

struct GlobalFlags {
    std::string controller = "http://127.0.0.1:7770";
    std::string token_file;
    bool json = false;
};

/// What the command line asks for; all flags live here until then.
struct Request {
    GlobalFlags global;
    std::string name;
    VnodeFlags vnode;
    StopFlags stop;
    double idle_s = 2;
    std::string size;
    std::string image;
    std::function<int(Commands&)> run;
};

CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& help, Request& request,
                      std::function<int(Commands&)> run)
{
    CLI::App* command = parent.add_subcommand(name, help);
    command->add_flag("--json", request.global.json, "Print the controller's answer as JSON");
    command->callback([&request, run = std::move(run)] { request.run = run; });
    return command;
}

CLI::App* add_named_command(CLI::App& parent, const std::string& name, const std::string& help,
                            Request& request, std::function<int(Commands&)> run)
{
    CLI::App* command = add_command(parent, name, help, request, std::move(run));
    command->add_option("NAME", request.name)->required();
    return command;
}

void add_component_commands(CLI::App& app, Request& request)
{
    CLI::App* component = app.add_subcommand("component", "Hosts that lend processors, memory and storage");
    component->require_subcommand(1);
    add_command(*component, "list", "List all components", request,
                [](Commands& commands) { return commands.list_components(); });
    add_named_command(*component, "show", "Show one component", request,
                      [&request](Commands& commands) { return commands.show_component(request.name); });
}

void add_create_flags(CLI::App& command, VnodeFlags& flags)
{
    command.add_option("NAME", flags.name)->required();
    command.add_option("--memory", flags.memory, "Size of the guest's memory, such as 512M")->required();
    command.add_option("--excache", flags.excache,
                       "Part of it held on the pComponent: 25% or a size (default: 25%)");
    command.add_option("--vcpus", flags.vcpus, "Number of vCPUs")->capture_default_str();
    command.add_option("--kernel", flags.kernel, "File name of the kernel on the pComponent")->required();
    command.add_option("--initrd", flags.initrd, "File name of the initrd on the pComponent");
    command.add_option("--cmdline", flags.cmdline, "Kernel command line (default: console=ttyS0)");
    command.add_option("--volume", flags.volumes, "NAME[,ro] of a volume; may be repeated")
        ->allow_extra_args(false);
    command.add_option("--memory-copies", flags.memory_copies, "Replicas of each vRegion")
        ->capture_default_str();
    command.add_option("--net", flags.nets, "TAP[,MAC] of a network card; may be repeated")
        ->allow_extra_args(false);
    command.add_option("--mechanism", flags.mechanism,
                       "How pages are taken from the guest: auto, move, write-protect");
    command.add_flag("--torture", flags.torture,
                     "Test aid: take pages from the guest at random, all the time");
    command.add_flag("--start", flags.start, "Start it at once");
}

void add_vnode_commands(CLI::App& app, Request& request)
{
    CLI::App* vnode = app.add_subcommand("vnode", "Virtual machines whose memory and disks lie elsewhere");
    vnode->require_subcommand(1);
    CLI::App* create =
        add_command(*vnode, "create", "Create a vNode", request,
                    [&request](Commands& commands) { return commands.create_vnode(request.vnode); });
    add_create_flags(*create, request.vnode);
    add_command(*vnode, "list", "List all vNodes", request,
                [](Commands& commands) { return commands.list_vnodes(); });
    add_named_command(*vnode, "show", "Show one vNode", request,
                      [&request](Commands& commands) { return commands.show_vnode(request.name); });
    add_named_command(*vnode, "start", "Start a vNode", request,
                      [&request](Commands& commands) { return commands.start_vnode(request.name); });
    CLI::App* stop = add_named_command(
        *vnode, "stop", "Stop a vNode", request,
        [&request](Commands& commands) { return commands.stop_vnode(request.name, request.stop); });
    stop->add_option("--grace", request.stop.grace_s, "Seconds that the guest has to power off")
        ->check(CLI::Range(0.0, 600.0))
        ->capture_default_str();
    stop->add_flag("--force", request.stop.force,
                   "End it at once; fences it off where its pComponent cannot be reached");
    CLI::App* console = add_named_command(
        *vnode, "console", "Attach to the serial console", request,
        [&request](Commands& commands) { return commands.vnode_console(request.name, request.idle_s); });
    console
        ->add_option("--idle", request.idle_s,
                     "Seconds without output after which an ended input detaches; 0: never")
        ->check(CLI::Range(0.0, 86400.0))
        ->capture_default_str();
    add_named_command(*vnode, "stats", "Show the VMM's counters", request,
                      [&request](Commands& commands) { return commands.vnode_stats(request.name); });
    add_named_command(*vnode, "delete", "Delete a stopped vNode", request,
                      [&request](Commands& commands) { return commands.delete_vnode(request.name); });
}

void add_volume_commands(CLI::App& app, Request& request)
{
    CLI::App* volume = app.add_subcommand("volume", "Disks of vNodes");
    volume->require_subcommand(1);
    CLI::App* create =
        add_named_command(*volume, "create", "Create a volume", request, [&request](Commands& commands) {
            return commands.create_volume(request.name, request.size, request.image);
        });
    create->add_option("--size", request.size, "Size, such as 2G")->required();
    create->add_option("--image", request.image, "Image whose content it gets (default: empty)");
    add_command(*volume, "list", "List all volumes", request,
                [](Commands& commands) { return commands.list_volumes(); });
    add_named_command(*volume, "show", "Show one volume", request,
                      [&request](Commands& commands) { return commands.show_volume(request.name); });
    add_named_command(*volume, "delete", "Delete a volume", request,
                      [&request](Commands& commands) { return commands.delete_volume(request.name); });
}

/// One line: what is wrong, and where help is.
int usage_error(CLI::App& app, const CLI::ParseError& error)
{
    CLI::App* command = &app;
    std::string path = "vnodectl";
    while (!command->get_subcommands().empty()) {
        command = command->get_subcommands().front();
        path += " " + command->get_name();
    }
    std::string what = error.what();
    const auto unknown = app.remaining(true);
    if (!unknown.empty()) what = "'" + unknown.front() + "' is not known here";
    std::fprintf(stderr, "vnodectl: %s; see '%s --help'\n", printable(what).c_str(), path.c_str());
    return 2;
}

int run(const Request& request)
{
    ::signal(SIGPIPE, SIG_IGN);
    if (request.global.token_file.empty())
        return fail("no token: give --token-file or set SPLITVISOR_TOKEN_FILE");
    auto token = read_file(request.global.token_file, ByteCount{4096});
    if (!token) return fail(token.error().message());
    while (!token->empty() && (token->back() == '\n' || token->back() == ' ')) token->pop_back();
    auto client = Client::create(request.global.controller, std::move(*token));
    if (!client) return fail(client.error().message());
    Commands commands{std::move(*client), request.global.json};
    return request.run(commands);
}

}  // namespace
}  // namespace splitvisor::vnodectl

int main(int argc, char** argv)
{
    using namespace splitvisor::vnodectl;
    Request request;
    CLI::App app{"Splitvisor's command line", "vnodectl"};
    app.require_subcommand(1);
    app.fallthrough();
    app.set_version_flag("--version", SPLITVISOR_VERSION);
    app.add_option("--controller", request.global.controller, "The controller's address")
        ->envname("SPLITVISOR_CONTROLLER")
        ->capture_default_str();
    app.add_option("--token-file", request.global.token_file, "File with the API token")
        ->envname("SPLITVISOR_TOKEN_FILE");
    app.add_flag("--json", request.global.json, "Print the controller's answer as JSON");
    add_component_commands(app, request);
    add_vnode_commands(app, request);
    add_volume_commands(app, request);
    add_command(app, "version", "Show the controller's version", request,
                [](Commands& commands) { return commands.version(); });
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        return usage_error(app, error);
    }
    return run(request);
}
