#include "vmm/control_protocol.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace splitvisor::vmm {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::pair<std::string_view, Command>, 6> kCommands{{
    {"status", Command::kStatus},
    {"pause", Command::kPause},
    {"resume", Command::kResume},
    {"shutdown", Command::kShutdown},
    {"kill", Command::kKill},
    {"stats", Command::kStats},
}};

/// One line; what is not UTF-8 is replaced.
std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json engine_json(const ept::EngineStats& engine)
{
    return Json{{"faults", engine.faults},
                {"remote_faults", engine.remote_faults},
                {"remote_pages", engine.remote_pages},
                {"zero_fills", engine.zero_fills},
                {"victim_hits", engine.victim_hits},
                {"ahead_windows", engine.ahead_windows},
                {"ahead_pages", engine.ahead_pages},
                {"ahead_reached", engine.ahead_reached},
                {"in_flight_waits", engine.in_flight_waits},
                {"evicted_clean", engine.evicted_clean},
                {"evicted_zero", engine.evicted_zero},
                {"written_back", engine.written_back},
                {"room_stalls", engine.room_stalls},
                {"retries", engine.retries},
                {"forgotten", engine.forgotten},
                {"resident_lines", engine.resident_lines},
                {"victim_lines", engine.victim_lines},
                {"capacity_lines", engine.capacity_lines},
                {"resident_peak", engine.resident_peak},
                {"fault_ns_total", engine.fault_ns_total},
                {"mechanism", engine.mechanism},
                {"waiting_for", engine.waiting_for}};
}

Json devices_json(const std::vector<DeviceStats>& devices)
{
    auto list = Json::array();
    for (const auto& device : devices) {
        Json entry{{"kind", device.kind}, {"name", device.name}};
        for (const auto& [name, value] : device.counters) entry[name] = value;
        list.push_back(std::move(entry));
    }
    return list;
}

}  // namespace

Result<Command> parse_command(std::string_view line)
{
    constexpr int kMaxDepth = 4;
    bool too_deep = false;
    std::size_t keys = 0;  // counted here, as the object keeps only the last of equal ones
    const auto check = [&](int depth, Json::parse_event_t event, Json&) {
        too_deep = too_deep || depth > kMaxDepth;
        if (event == Json::parse_event_t::key) ++keys;
        return !too_deep;
    };
    const auto request = Json::parse(line, check, /*allow_exceptions=*/false);
    if (too_deep || request.is_discarded() || !request.is_object()) {
        return Error{ErrorCode::kInvalid, "not a JSON object"};
    }
    const auto member = request.find("command");
    if (member == request.end() || !member->is_string()) return Error{ErrorCode::kInvalid, "command is missing"};
    if (keys != 1) return Error{ErrorCode::kInvalid, "command takes no arguments"};
    const auto& name = member->get_ref<const std::string&>();
    for (const auto& [known, command] : kCommands) {
        if (name == known) return command;
    }
    return Error{ErrorCode::kInvalid, "unknown command; known are status, pause, resume, shutdown, kill, stats"};
}

std::string_view to_string(MachineState state)
{
    switch (state) {
    case MachineState::kStarting: return "starting";
    case MachineState::kRunning: return "running";
    case MachineState::kPaused: return "paused";
    case MachineState::kRestarting: return "restarting";
    case MachineState::kEnded: return "ended";
    }
    return "unknown";
}

std::string format_ok() { return line_of(Json{{"ok", true}}); }

std::string format_error(const Error& error)
{
    return line_of(Json{{"ok", false}, {"error", error.message()}, {"code", to_string(error.code())}});
}

std::string format_status(const VnodeStatus& status)
{
    return line_of(Json{{"ok", true},
                        {"name", status.name},
                        {"epoch", status.epoch},
                        {"state", to_string(status.state)},
                        {"waiting_for", status.waiting_for},
                        {"uptime_ms", status.uptime_ms},
                        {"restarts", status.restarts},
                        {"vcpus", status.vcpus},
                        {"memory_bytes", status.memory_bytes}});
}

std::string format_stats(const VnodeStats& stats)
{
    auto exits = Json::object();
    for (std::size_t i = 0; i < vcpu::kExitCauses; ++i) {
        exits[std::string{to_string(static_cast<vcpu::ExitCause>(i))}] = stats.exits[i];
    }
    Json json{{"ok", true},
              {"exits", std::move(exits)},
              {"unclaimed", {{"ports", stats.bus.unclaimed_ports}, {"memory", stats.bus.unclaimed_memory}}},
              {"traffic", {{"sent_bytes", stats.traffic.sent_bytes}, {"received_bytes", stats.traffic.received_bytes}}},
              {"console_lost_bytes", stats.console_lost_bytes},
              {"devices", devices_json(stats.devices)}};
    if (stats.has_engine) json["engine"] = engine_json(stats.engine);
    return line_of(json);
}

std::string format_ending(int exit_status, std::string_view reason)
{
    return line_of(Json{{"status", exit_status}, {"reason", reason}});
}

}  // namespace splitvisor::vmm
