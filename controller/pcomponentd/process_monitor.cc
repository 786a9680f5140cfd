#include "controller/pcomponentd/process_monitor.h"

#include <dirent.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "controller/pcomponentd/vmm_socket.h"

namespace splitvisor::controller {

namespace {

constexpr std::size_t kMaxVnodes = 4096;
constexpr std::size_t kMaxUnreported = 4096;
constexpr std::uint64_t kControlMs = 4000;
constexpr std::chrono::milliseconds kStatusInterval{20};
/// Between a VMM's end and the keeper's note of it.
constexpr std::uint64_t kEndingMs = 1000;

/// sockaddr_un::sun_path has 108 bytes; "/console.sock" and a terminator must fit behind the folder.
constexpr std::size_t kMaxRunDirBytes = 108 - 14;

Error invalid_name(const std::string& name)
{
    return {ErrorCode::kInvalid, "'" + name + "' is not a valid name"};
}

Error not_running(const std::string& name)
{
    return {ErrorCode::kNotFound, "vNode '" + name + "' does not run here"};
}

/// What the keeper and the VMM tell of its end; waits a moment for the keeper.
VmmEnding ending_of(const RunDir& run_dir)
{
    const std::uint64_t until_ms = now_ms() + kEndingMs;
    do {
        if (auto ending = run_dir.ending()) return *ending;
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
    } while (now_ms() < until_ms);
    return {-1, run_dir.last_log_line()};
}

}  // namespace

ProcessMonitor::ProcessMonitor(ProcessMonitorOptions options, EventFd wake)
    : options_{std::move(options)}, wake_{std::move(wake)}
{
}

Result<std::unique_ptr<ProcessMonitor>> ProcessMonitor::create(ProcessMonitorOptions options)
{
    if (::mkdir(options.run_dir.c_str(), 0700) != 0 && errno != EEXIST) {
        return Error::from_errno("mkdir " + options.run_dir);
    }
    auto wake = EventFd::create();
    if (!wake) return wake.error();
    std::unique_ptr<ProcessMonitor> monitor{new ProcessMonitor{std::move(options), std::move(*wake)}};
    monitor->adopt_all();
    monitor->watcher_ = Thread{"watch-vmms", [self = monitor.get()] { self->watch(); }};
    return monitor;
}

ProcessMonitor::~ProcessMonitor()
{
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    wake_.signal();
    watcher_.join();
}

void ProcessMonitor::adopt_all()
{
    const std::unique_ptr<DIR, int (*)(DIR*)> folder{::opendir(options_.run_dir.c_str()), ::closedir};
    if (!folder) return;
    while (const dirent* entry = ::readdir(folder.get())) {
        if (vnodes_.size() >= kMaxVnodes) return;
        if (is_valid_name(entry->d_name)) adopt(entry->d_name);
    }
}

void ProcessMonitor::adopt(const std::string& name)
{
    const RunDir run_dir = dir_of(name);
    const auto config = run_dir.read_config();
    if (!config) return;
    const Epoch epoch{config->number("epoch")};
    auto process = VmmProcess::adopt(run_dir);
    if (process) {
        log_info("vnode_adopted", field("vnode", std::string_view{name}) + field("epoch", epoch.value()));
        vnodes_.emplace(name, Vnode{epoch, ByteCount{config->number("excache_bytes")}, State::kRunning,
                                    std::make_shared<const VmmProcess>(std::move(*process))});
    } else {
        report({name, epoch, run_dir.ending().value_or(VmmEnding{-1, run_dir.last_log_line()})});
    }
}

void ProcessMonitor::report_to(wire::Agent* agent)
{
    const std::lock_guard lock{mutex_};
    agent_ = agent;
    if (agent_ == nullptr) return;
    for (const Ending& ending : unreported_) {
        agent_->report_vnode_exit(ending.name, ending.epoch, ending.how.exit_status, ending.how.reason);
    }
    unreported_.clear();
}

void ProcessMonitor::report(Ending ending)
{
    const std::lock_guard lock{mutex_};
    if (agent_ != nullptr) {
        agent_->report_vnode_exit(ending.name, ending.epoch, ending.how.exit_status, ending.how.reason);
    } else if (unreported_.size() < kMaxUnreported) {
        unreported_.push_back(std::move(ending));
    }
}

wire::Usage ProcessMonitor::usage() const
{
    wire::Usage usage;
    Json vnodes = Json::array();
    std::uint64_t excaches = 0;
    {
        const std::lock_guard lock{mutex_};
        for (const auto& [name, vnode] : vnodes_) {
            const char* state = vnode.state == State::kStarting  ? "starting"
                                : vnode.state == State::kRunning ? "running"
                                                                 : "stopping";
            vnodes.push(Json::object()
                            .set("name", name)
                            .set("epoch", vnode.epoch.value())
                            .set("state", state)
                            .set("pid", vnode.process ? vnode.process->pid() : 0));
            excaches += vnode.excache.value();
        }
    }
    usage.capacity = options_.memory;
    usage.used = ByteCount{excaches};
    usage.detail_json = Json::object()
                            .set("vcpus", options_.vcpus)
                            .set("kernels", Json::array_of(list_kernels(options_.kernels_dir)))
                            .set("vnodes", std::move(vnodes))
                            .dump();
    return usage;
}

std::optional<ProcessMonitor::Vnode> ProcessMonitor::find(const std::string& name) const
{
    const std::lock_guard lock{mutex_};
    const auto found = vnodes_.find(name);
    if (found == vnodes_.end()) return std::nullopt;
    return found->second;
}

void ProcessMonitor::set_state(const std::string& name, State state)
{
    const std::lock_guard lock{mutex_};
    const auto found = vnodes_.find(name);
    if (found != vnodes_.end()) found->second.state = state;
}

Status ProcessMonitor::start_vnode(const std::string& name, const std::string& spec_json)
{
    if (!is_valid_name(name)) return invalid_name(name);
    const RunDir run_dir = dir_of(name);
    if (run_dir.path().size() > kMaxRunDirBytes) {
        return Error{ErrorCode::kInvalid, run_dir.path() + " is too long for the names of sockets in it"};
    }
    auto spec = Json::parse(spec_json);
    if (!spec) return spec.error().in("spec");
    const Epoch epoch{spec->number("epoch")};
    const ByteCount excache{spec->number("excache_bytes")};
    if (const auto existing = find(name)) {
        if (existing->epoch == epoch && existing->process) return await_running(name, *existing->process);
        return Error{ErrorCode::kExists, "vNode '" + name + "' still runs with epoch " +
                                             std::to_string(existing->epoch.value())};
    }
    auto config = complete_config(std::move(*spec), options_.kernels_dir, run_dir.path());
    if (!config) return config.error();
    SPLITVISOR_TRY(run_dir.prepare(*config));
    auto started = VmmProcess::start(run_dir, options_.keeper, options_.vmm);
    if (!started) return started.error();
    const auto process = std::make_shared<const VmmProcess>(std::move(*started));
    {
        const std::lock_guard lock{mutex_};
        vnodes_.insert_or_assign(name, Vnode{epoch, excache, State::kStarting, process});
    }
    wake_.signal();
    if (auto running = await_running(name, *process); !running) {
        process->kill();
        static_cast<void>(await_gone(name, options_.kill_ms));
        return running;
    }
    log_info("vnode_runs", field("vnode", std::string_view{name}) + field("epoch", epoch.value()) +
                               field("pid", static_cast<std::uint64_t>(process->pid())));
    return {};
}

/// A VMM that ends while it is awaited is the start's failure and not reported as an ending too.
Status ProcessMonitor::await_running(const std::string& name, const VmmProcess& process)
{
    const RunDir run_dir = dir_of(name);
    const std::uint64_t until_ms = now_ms() + options_.start_ms;
    while (now_ms() < until_ms) {
        if (process.has_ended()) {
            const VmmEnding ending = ending_of(run_dir);
            return Error{ErrorCode::kIo, ending.reason.empty()
                                             ? "vnode-vmm ended with status " + std::to_string(ending.exit_status)
                                             : ending.reason};
        }
        const auto answer = ask_vmm(run_dir.control_socket(), R"({"command":"status"})", kControlMs);
        const auto status = answer ? Json::parse(*answer) : Result<Json>{Json{}};
        const std::string state = status ? status->text("state") : std::string{};
        if (state == "running" || state == "paused" || state == "restarting") {
            set_state(name, State::kRunning);
            return {};
        }
        std::this_thread::sleep_for(kStatusInterval);
    }
    return Error{ErrorCode::kTimeout, "the VMM did not run its guest within " + std::to_string(options_.start_ms) + " ms"};
}

std::shared_ptr<const VmmProcess> ProcessMonitor::begin_stop(const std::string& name)
{
    const std::lock_guard lock{mutex_};
    const auto found = vnodes_.find(name);
    if (found == vnodes_.end()) return nullptr;
    found->second.state = State::kStopping;
    return found->second.process;
}

bool ProcessMonitor::await_gone(const std::string& name, std::uint64_t deadline_ms)
{
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, std::chrono::milliseconds{deadline_ms},
                             [this, &name] { return !vnodes_.contains(name); });
}

Status ProcessMonitor::stop_vnode(const std::string& name, std::uint64_t grace_ms)
{
    if (!is_valid_name(name)) return invalid_name(name);
    const auto process = begin_stop(name);
    if (!process) return {};
    const std::string socket = dir_of(name).control_socket();
    if (grace_ms > 0) {
        const auto asked = ask_vmm(socket, R"({"command":"shutdown"})", kControlMs);
        if (!asked) log_warning("vnode_not_asked", field("vnode", std::string_view{name}) + field("error", asked.error()));
        if (asked && await_gone(name, grace_ms)) return {};
    }
    const auto told = ask_vmm(socket, R"({"command":"kill"})", options_.kill_ms);
    if (told && await_gone(name, options_.kill_ms)) return {};
    process->kill();
    if (await_gone(name, options_.kill_ms)) return {};
    set_state(name, State::kRunning);
    return Error{ErrorCode::kTimeout, "vNode '" + name + "' does not end"};
}

Result<std::string> ProcessMonitor::control_vnode(const std::string& name, const std::string& command_json)
{
    if (!find(name)) return not_running(name);
    return ask_vmm(dir_of(name).control_socket(), command_json, kControlMs);
}

Status ProcessMonitor::forget_vnode(const std::string& name)
{
    if (!is_valid_name(name)) return invalid_name(name);
    if (find(name)) return Error{ErrorCode::kExists, "vNode '" + name + "' runs"};
    return dir_of(name).remove();
}

Result<Fd> ProcessMonitor::open_console(const std::string& name)
{
    if (!find(name)) return not_running(name);
    return connect_unix(dir_of(name).console_socket());
}

void ProcessMonitor::watch()
{
    for (;;) {
        std::vector<std::pair<std::string, std::shared_ptr<const VmmProcess>>> watched;
        {
            const std::lock_guard lock{mutex_};
            if (stopping_) return;
            for (const auto& [name, vnode] : vnodes_) watched.emplace_back(name, vnode.process);
        }
        std::vector<pollfd> polls{{wake_.fd(), POLLIN, 0}};
        for (const auto& [name, process] : watched) polls.push_back({process->pidfd(), POLLIN, 0});
        if (::poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) {
            log_error("poll_failed", field("error", Error::from_errno("poll")));
            std::this_thread::sleep_for(std::chrono::seconds{1});
        }
        if (polls.front().revents != 0) wake_.drain();
        for (std::size_t i = 0; i < watched.size(); ++i) {
            if (polls[i + 1].revents != 0) note_ending(watched[i].first, *watched[i].second);
        }
    }
}

void ProcessMonitor::note_ending(const std::string& name, const VmmProcess& process)
{
    VmmEnding how = ending_of(dir_of(name));
    Vnode ended;
    {
        const std::lock_guard lock{mutex_};
        const auto found = vnodes_.find(name);
        if (found == vnodes_.end() || found->second.process.get() != &process) return;
        ended = found->second;
        vnodes_.erase(found);
    }
    log_info("vnode_ended", field("vnode", std::string_view{name}) + field("status", std::to_string(how.exit_status)) +
                                field("reason", std::string_view{how.reason}));
    // Before the waiting command is woken: the controller hears of the end first, then of the stop.
    if (ended.state == State::kRunning) report({name, ended.epoch, std::move(how)});
    changed_.notify_all();
}

}  // namespace splitvisor::controller
