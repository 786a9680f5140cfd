#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <utility>

#include "base/capability.h"
#include "base/log.h"
#include "base/text.h"
#include "controller/wire/monitor.h"
#include "fabric/connection.h"
#include "vstore/server.h"
#include "vstore/volume_store.h"

namespace splitvisor::vstore {

namespace {

/// The command line as it was given.
struct Flags {
    std::string name;
    std::string controller;
    std::string token_file;
    std::string listen;
    std::string advertise;
    std::string directory;
    std::string capacity;
    bool write_through = false;
};

struct Settings {
    std::string name;
    std::string controller;
    std::string token;
    fabric::Endpoint listen;
    std::string advertise;
    VolumeStore::Options store;
    bool write_through = false;
};

/// The controller's commands, applied to the store. Thread-safe.
class Commands final : public wire::StorageCommands {
  public:
    explicit Commands(VolumeStore& store) : store_{store} {}

    Status create_volume(VolumeId volume, ByteCount size, const std::string& image,
                         const std::string& capability, Epoch epoch) override
    {
        const auto secret = parse_capability(capability);
        if (!secret) return secret.error();
        return logged(
            "create volume", volume,
            store_.create(
                {.id = volume, .size = size, .epoch = epoch, .capability = *secret, .image = image}));
    }
    Status delete_volume(VolumeId volume) override
    {
        return logged("delete volume", volume, store_.remove(volume));
    }
    Status set_volume_epoch(VolumeId volume, Epoch epoch) override
    {
        return logged("set volume epoch", volume, store_.set_epoch(volume, epoch));
    }

  private:
    static Status logged(std::string_view what, VolumeId volume, Status status)
    {
        const auto fields = field("volume", volume.value());
        if (status) {
            log_info(what, fields);
        } else {
            log_warning(what, fields + field("error", status.error()));
        }
        return status;
    }

    VolumeStore& store_;
};

Result<Settings> settle(const Flags& flags)
{
    Settings settings{.name = flags.name,
                      .controller = flags.controller,
                      .token = {},
                      .listen = {},
                      .advertise = flags.advertise,
                      .store = {.directory = flags.directory, .capacity = {}},
                      .write_through = flags.write_through};
    if (!is_valid_name(flags.name))
        return Error{ErrorCode::kInvalid, "--name: not a component name: " + flags.name};
    auto listen = fabric::Endpoint::parse(flags.listen);
    if (!listen) return listen.error().in("--listen");
    settings.listen = std::move(*listen);
    if (!flags.advertise.empty()) {
        if (const auto endpoint = fabric::Endpoint::parse(flags.advertise); !endpoint) {
            return endpoint.error().in("--advertise");
        }
    }
    if (!flags.capacity.empty()) {
        const auto capacity = parse_size(flags.capacity);
        if (!capacity) return capacity.error().in("--capacity");
        settings.store.capacity = *capacity;
    }
    auto token = wire::read_token(flags.token_file);
    if (!token) return token.error();
    settings.token = std::move(*token);
    return settings;
}

wire::Usage usage_of(const VolumeStore& store, const Server& server)
{
    const auto& served = server.statistics();
    const auto member = [](std::string_view name, std::uint64_t value) {
        return "\"" + std::string{name} + "\":" + std::to_string(value);
    };
    return {
        .capacity = store.capacity(),
        .used = store.used(),
        .images = store.images(),
        .detail_json =
            "{" + member("volumes", store.volume_count()) + "," + member("sessions", server.session_count()) +
            "," + member("read_requests", served.read_requests) + "," +
            member("read_bytes", served.read_bytes) + "," + member("write_requests", served.write_requests) +
            "," + member("write_bytes", served.write_bytes) + "," + member("flushes", served.flushes) + "," +
            member("refused_requests", served.refused_requests) + "}"};
}

Status run(const Settings& settings)
{
    const auto signals = wire::take_ending_signals();
    if (!signals) return signals.error();
    wire::raise_descriptor_limit();
    const auto boot_id = read_boot_id();
    if (!boot_id) return boot_id.error();
    auto store = VolumeStore::open(settings.store);
    if (!store) return store.error();
    auto server = Server::start(**store, settings.listen,
                                {.boot_id = *boot_id, .write_through = settings.write_through});
    if (!server) return server.error();

    Commands commands{**store};
    wire::AgentOptions agent;
    agent.kind = wire::ComponentKind::kStorage;
    agent.name = settings.name;
    agent.controller = settings.controller;
    agent.token = settings.token;
    agent.data_endpoint = settings.advertise.empty() ? (*server)->endpoint().to_string() : settings.advertise;
    agent.usage = [&store, &server] { return usage_of(**store, **server); };
    agent.storage = &commands;
    log_info("serving", field("endpoint", (*server)->endpoint().to_string()) +
                            field("capacity", format_size((*store)->capacity())) +
                            field("volumes", (*store)->volume_count()));
    return wire::stay_enrolled(agent, *signals);
}

int main_with(int argc, char** argv)
{
    Flags flags;
    CLI::App app{"The storage monitor: lends this machine's storage to vNodes.", "scomponentd"};
    app.add_option("--name", flags.name, "name of this sComponent")->required();
    app.add_option("--controller", flags.controller, "HOST:PORT of the controller")->required();
    app.add_option("--token-file", flags.token_file, "file with the enrolment token")->required();
    app.add_option("--listen", flags.listen, "where VMMs connect: tcp:HOST:PORT or unix:/PATH")->required();
    app.add_option("--advertise", flags.advertise, "where VMMs reach it, if not at --listen");
    app.add_option("--dir", flags.directory, "directory of volumes and images")->required();
    app.add_option("--capacity", flags.capacity,
                   "what volumes may sum up to, as 500G (default: the free space)");
    app.add_flag("--write-through", flags.write_through, "acknowledge writes only when they are durable");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        std::fprintf(stderr, "scomponentd: %s\n", error.what());
        return 2;
    }

    const auto settings = settle(flags);
    if (!settings) {
        std::fprintf(stderr, "scomponentd: %s\n", settings.error().message().c_str());
        return 2;
    }
    start_log("scomponentd");
    if (const auto ran = run(*settings); !ran) {
        std::fprintf(stderr, "scomponentd: %s\n", ran.error().message().c_str());
        return 1;
    }
    return 0;
}

}  // namespace

}  // namespace splitvisor::vstore

int main(int argc, char** argv)
{
    return splitvisor::vstore::main_with(argc, argv);
}
