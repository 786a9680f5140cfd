#include <CLI/CLI.hpp>
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
    std::string listen;
    std::string advertise;
    std::string directory;
    std::string capacity;
    bool write_through = false;
};

struct Settings {
    fabric::Endpoint listen;
    VolumeStore::Options store;
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
    Settings settings{.listen = {}, .store = {.directory = flags.directory, .capacity = {}}};
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

Status serve(const Flags& flags, wire::AgentOptions agent)
{
    const auto settings = settle(flags);
    if (!settings) return settings.error();
    const auto signals = wire::take_ending_signals();
    if (!signals) return signals.error();
    wire::raise_descriptor_limit();
    const auto boot_id = read_boot_id();
    if (!boot_id) return boot_id.error();
    auto store = VolumeStore::open(settings->store);
    if (!store) return store.error();
    auto server = Server::start(**store, settings->listen,
                                {.boot_id = *boot_id, .write_through = flags.write_through});
    if (!server) return server.error();

    Commands commands{**store};
    agent.kind = wire::ComponentKind::kStorage;
    agent.data_endpoint = flags.advertise.empty() ? (*server)->endpoint().to_string() : flags.advertise;
    agent.usage = [&store, &server] { return usage_of(**store, **server); };
    agent.storage = &commands;
    log_info("serving", field("endpoint", (*server)->endpoint().to_string()) +
                            field("capacity", format_size((*store)->capacity())) +
                            field("volumes", (*store)->volume_count()));
    return wire::stay_enrolled(agent, *signals);
}

}  // namespace

}  // namespace splitvisor::vstore

int main(int argc, char** argv)
{
    namespace vstore = splitvisor::vstore;
    vstore::Flags flags;
    CLI::App app{"The storage monitor: lends this machine's storage to vNodes.", "scomponentd"};
    app.add_option("--listen", flags.listen, "where VMMs connect: tcp:HOST:PORT, rdma:HOST:PORT, unix:/PATH or shm:/PATH")->required();
    app.add_option("--advertise", flags.advertise, "where VMMs reach it, if not at --listen");
    app.add_option("--dir", flags.directory, "directory of volumes and images")->required();
    app.add_option("--capacity", flags.capacity,
                   "what volumes may sum up to, as 500G (default: the free space)");
    app.add_flag("--write-through", flags.write_through, "acknowledge writes only when they are durable");
    return splitvisor::wire::monitor_main(
        app, argc, argv, [&](auto agent) { return vstore::serve(flags, std::move(agent)); });
}
