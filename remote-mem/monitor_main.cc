#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "base/capability.h"
#include "base/log.h"
#include "base/text.h"
#include "controller/wire/monitor.h"
#include "fabric/connection.h"
#include "remote-mem/server.h"
#include "remote-mem/store.h"

namespace splitvisor::remote_mem {

namespace {

/// The command line as it was given.
struct Flags {
    std::string listen;
    std::string advertise;
    std::string capacity;
};

struct Settings {
    ServerOptions server;
    ByteCount capacity{};
};

/// The controller's commands, applied to the store. Thread-safe.
class Commands final : public wire::MemoryCommands {
  public:
    explicit Commands(RegionStore& store) : store_{store} {}

    Status create_region(RegionId region, ByteCount size, const std::string& capability, Epoch epoch) override
    {
        const auto secret = parse_capability(capability);
        if (!secret) return secret.error();
        return logged("create region", region, store_.create_region(region, size, *secret, epoch));
    }
    Status delete_region(RegionId region) override
    {
        auto status = store_.delete_region(region);
        if (!status && status.error().code() == ErrorCode::kNotFound) return {};
        return logged("delete region", region, std::move(status));
    }
    Status set_region_epoch(RegionId region, Epoch epoch) override
    {
        return logged("set region epoch", region, store_.set_epoch(region, epoch));
    }

  private:
    static Status logged(std::string_view what, RegionId region, Status status)
    {
        const auto fields = field("region", region.value());
        if (status) {
            log_info(what, fields);
        } else {
            log_warning(what, fields + field("error", status.error()));
        }
        return status;
    }

    RegionStore& store_;
};

Result<ByteCount> capacity_of(const Flags& flags)
{
    const auto capacity = parse_size(flags.capacity);
    if (!capacity) return capacity.error().in("--capacity");
    const ByteCount memory{static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                           static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))};
    // What is promised here is handed out later, page by page: the kernel must be able to keep it.
    if (capacity->value() == 0 || *capacity > memory) {
        return Error{ErrorCode::kInvalid, "--capacity: " + flags.capacity +
                                              " must be more than nothing and at most this machine's " +
                                              format_size(memory)};
    }
    return *capacity;
}

Result<Settings> settle(const Flags& flags)
{
    auto listen = fabric::Endpoint::parse(flags.listen);
    if (!listen) return listen.error().in("--listen");
    if (!flags.advertise.empty()) {
        if (const auto endpoint = fabric::Endpoint::parse(flags.advertise); !endpoint) {
            return endpoint.error().in("--advertise");
        }
    }
    const auto capacity = capacity_of(flags);
    if (!capacity) return capacity.error();
    return Settings{.server = {.endpoint = std::move(*listen)}, .capacity = *capacity};
}

wire::Usage usage_of(const RegionStore& store, const DataServer& server)
{
    const auto stats = store.stats();
    const auto member = [](std::string_view name, std::uint64_t value) {
        return "\"" + std::string{name} + "\":" + std::to_string(value);
    };
    return {.capacity = stats.capacity,
            .used = stats.reserved,
            .images = {},
            .detail_json =
                "{" + member("regions", stats.regions) + "," + member("connections", server.connections()) +
                "," + member("stored_pages", stats.stored_pages) + "," +
                member("pages_read", stats.pages_read) + "," + member("pages_written", stats.pages_written) +
                "," + member("zero_pages_written", stats.zero_pages_written) + "," +
                member("pages_dropped", stats.pages_dropped) + "," +
                member("stale_pages", stats.stale_pages) + "," +
                member("corrupt_pages", stats.corrupt_pages) + "," + member("refused", stats.refused) + "}"};
}

/// Never the same twice: what this process holds is gone when it ends, and the controller must see that.
Result<std::uint64_t> new_incarnation()
{
    std::uint64_t number = 0;
    if (::getentropy(&number, sizeof number) != 0) return Error::from_errno("getentropy");
    return number;
}

Status serve(const Flags& flags, wire::AgentOptions agent)
{
    const auto settings = settle(flags);
    if (!settings) return settings.error();
    const auto signals = wire::take_ending_signals();
    if (!signals) return signals.error();
    wire::raise_descriptor_limit();
    const auto incarnation = new_incarnation();
    if (!incarnation) return incarnation.error();
    RegionStore store{settings->capacity};
    auto server = DataServer::start(settings->server, store);
    if (!server) return server.error();

    Commands commands{store};
    agent.kind = wire::ComponentKind::kMemory;
    agent.data_endpoint = flags.advertise.empty() ? (*server)->endpoint().to_string() : flags.advertise;
    agent.incarnation = *incarnation;
    agent.usage = [&store, &server] { return usage_of(store, **server); };
    agent.memory = &commands;
    log_info("serving", field("endpoint", (*server)->endpoint().to_string()) +
                            field("capacity", format_size(settings->capacity)));
    return wire::stay_enrolled(agent, *signals);
}

}  // namespace

}  // namespace splitvisor::remote_mem

int main(int argc, char** argv)
{
    namespace remote_mem = splitvisor::remote_mem;
    remote_mem::Flags flags;
    CLI::App app{"The memory monitor: lends this machine's memory to vNodes.", "mcomponentd"};
    app.add_option("--listen", flags.listen, "where VMMs connect: tcp:HOST:PORT, rdma:HOST:PORT, unix:/PATH or shm:/PATH")->required();
    app.add_option("--advertise", flags.advertise, "where VMMs reach it, if not at --listen");
    app.add_option("--capacity", flags.capacity,
                   "the memory it lends, as 8G; 0.4 % more are taken for bookkeeping")
        ->required();
    return splitvisor::wire::monitor_main(
        app, argc, argv, [&](auto agent) { return remote_mem::serve(flags, std::move(agent)); });
}
