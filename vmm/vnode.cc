#include "vmm/vnode.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>

#include "base/clock.h"
#include "base/log.h"
#include "fabric/connection.h"
#include "vmm/control_protocol.h"

namespace splitvisor::vmm {
namespace {

constexpr std::uint64_t kFlushMs = 500;

std::string in_folder(const Config& config, std::string_view name) { return config.run_dir + "/" + std::string{name}; }

Result<Fd> lock_folder(const Config& config)
{
    if (::mkdir(config.run_dir.c_str(), 0700) != 0 && errno != EEXIST) {
        return Error::from_errno("cannot create " + config.run_dir);
    }
    const auto path = in_folder(config, "lock");
    Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (!fd.valid()) return Error::from_errno("cannot open " + path);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        return Error{ErrorCode::kExists, config.run_dir + ": another vnode-vmm uses this run_dir"};
    }
    return fd;
}

/// Replaces a file in one step; a reader sees the old content or the new.
void publish(const std::string& path, std::string_view content)
{
    const auto fresh = path + ".new";
    const Fd fd{::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    if (!fd.valid() || !write_all(fd.get(), std::as_bytes(std::span{content}))) return;
    std::rename(fresh.c_str(), path.c_str());
}

}  // namespace

Result<std::unique_ptr<Vnode>> Vnode::open(Config config, MemoryKind memory_kind)
{
    auto lock = lock_folder(config);
    if (!lock) return lock.error();
    auto event = EventFd::create();
    if (!event) return event.error();
    std::unique_ptr<Vnode> vnode{new Vnode{std::move(config), memory_kind, std::move(*lock), std::move(*event)}};
    auto* self = vnode.get();
    ::unlink(in_folder(self->config_, "exit.json").c_str());
    auto console = ConsoleHub::start({in_folder(self->config_, "console.sock"), in_folder(self->config_, "console.log")});
    if (!console) return console.error();
    self->console_ = std::move(*console);
    auto control = ControlServer::start(in_folder(self->config_, "control.sock"),
                                        [self](std::string_view line) { return self->answer(line); });
    if (!control) return control.error();
    self->control_ = std::move(*control);
    return vnode;
}

Vnode::Vnode(Config config, MemoryKind memory_kind, Fd lock, EventFd ending)
    : config_{std::move(config)},
      memory_kind_{memory_kind},
      started_ms_{now_ms()},
      lock_{std::move(lock)},
      ending_{std::move(ending)}
{
}

void Vnode::run()
{
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    const Fd signal_fd{::signalfd(-1, &signals, SFD_CLOEXEC)};
    if (!signal_fd.valid()) end({ExitStatus::kStartFailed, Error::from_errno("signalfd").message()});
    thread_ = Thread{"machine", [this] { run_machine(); }};
    while (true) {
        std::array<pollfd, 2> polled{{{signal_fd.get(), POLLIN, 0}, {ending_.fd(), POLLIN, 0}}};
        if (::poll(polled.data(), polled.size(), -1) < 0) continue;
        if (const auto ending = ending_.get()) end(*ending);
        if (polled[0].revents != 0) end({ExitStatus::kPoweredOff, "stopped"});
    }
}

void Vnode::end(const Ending& ending)
{
    console_->flush(kFlushMs);
    const int status = static_cast<int>(ending.status);
    publish(in_folder(config_, "exit.json"), format_ending(status, ending.reason) + "\n");
    for (const auto* name : {"control.sock", "console.sock"}) ::unlink(in_folder(config_, name).c_str());
    if (ending.status == ExitStatus::kPoweredOff) {
        log_info("vnode ended", field("reason", ending.reason));
    } else if (ending.status == ExitStatus::kStartFailed) {
        std::fprintf(stderr, "vnode-vmm: %s\n", ending.reason.c_str());
    } else {
        log_error("vnode ended", field("reason", ending.reason) + field("status", static_cast<std::uint64_t>(status)));
    }
    std::fflush(nullptr);
    ::_exit(status);
}

void Vnode::run_machine()
{
    if (const auto status = prepare(); !status) {
        ending_.set({ExitStatus::kStartFailed, status.error().message()});
        return;
    }
    ending_.set(machine_->run());
}

Status Vnode::prepare()
{
    auto system = vcpu::System::open();
    if (!system) return system.error();
    const auto on_fatal = [this](const Error& error) {
        const bool fenced = error.code() == ErrorCode::kStale;
        ending_.set({fenced ? ExitStatus::kFenced : ExitStatus::kMemoryLost,
                     (fenced ? "fenced: " : "memory lost: ") + error.message()});
    };
    auto ram = memory_kind_ == MemoryKind::kLocal ? make_local_ram(config_) : make_remote_ram(config_, on_fatal);
    if (!ram) return ram.error();
    {
        const std::lock_guard lock{mutex_};
        ram_ = std::move(*ram);
    }
    auto disks = open_disks(config_);
    if (!disks) return disks.error();
    disks_ = std::move(*disks);
    auto machine = std::make_unique<Machine>(
        config_, std::move(*system), *ram_, *console_,
        [this](const GuestMemory& memory) { return make_virtio_devices(config_, memory, *ram_, disks_); });
    const std::lock_guard lock{mutex_};
    machine_ = std::move(machine);
    return {};
}

ControlServer::Answer Vnode::answer(std::string_view line)
{
    const auto command = parse_command(line);
    if (!command) return {format_error(command.error()), {}};
    switch (*command) {
    case Command::kStatus: return {status_text(), {}};
    case Command::kStats: return {stats_text(), {}};
    case Command::kKill:
        return {format_ok(), [this] { ending_.set({ExitStatus::kPoweredOff, "killed"}); }};
    case Command::kPause:
    case Command::kResume:
    case Command::kShutdown: break;
    }
    const auto status = command_machine(*command);
    return {status.ok() ? format_ok() : format_error(status.error()), {}};
}

Status Vnode::command_machine(Command command)
{
    Machine* machine = nullptr;
    {
        // Once set, the machine stays until the process ends.
        const std::lock_guard lock{mutex_};
        machine = machine_.get();
    }
    if (machine == nullptr) return Error{ErrorCode::kUnavailable, "the machine is starting"};
    if (command == Command::kPause) return machine->pause();
    if (command == Command::kResume) return machine->resume();
    return machine->press_power_button();
}

std::string Vnode::status_text()
{
    VnodeStatus status;
    status.name = config_.name;
    status.epoch = config_.epoch.value();
    status.uptime_ms = now_ms() - started_ms_;
    status.vcpus = config_.vcpus;
    status.memory_bytes = config_.memory.value();
    const std::lock_guard lock{mutex_};
    if (machine_) {
        status.state = machine_->state();
        status.restarts = machine_->restarts();
    }
    if (ram_) {
        if (const auto engine = ram_->stats()) status.waiting_for = engine->waiting_for;
    }
    if (ending_.get()) status.state = MachineState::kEnded;
    return format_status(status);
}

std::string Vnode::stats_text()
{
    VnodeStats stats;
    stats.traffic = fabric::traffic();
    stats.console_lost_bytes = console_->lost_bytes();
    const std::lock_guard lock{mutex_};
    if (ram_) {
        if (auto engine = ram_->stats()) {
            stats.engine = std::move(*engine);
            stats.has_engine = true;
        }
    }
    if (machine_) machine_->add_stats(stats);
    return format_stats(stats);
}

}  // namespace splitvisor::vmm
