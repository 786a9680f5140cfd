#include "vmm/machine.h"

#include <array>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "vmm/acpi/tables.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"

namespace splitvisor::vmm {
namespace {

constexpr std::uint64_t kPauseMs = 2000;
constexpr std::uint64_t kStopMs = 1000;
constexpr auto kTransitionPatience = std::chrono::milliseconds{500};
constexpr ByteCount kLargestKernel{512 * kMiB};
constexpr ByteCount kLargestInitrd{2 * kGiB};

std::span<const std::byte> bytes_of_text(const std::string& text) { return std::as_bytes(std::span{text}); }

/// Firmware for one purpose. A kernel that finds reduced ACPI and no EFI ends its restart with a jump in real mode to the reset
/// vector, as on a PC (Linux 6.1 and 6.12, arch/x86/kernel/reboot.c: it takes such a machine for one with EFI).
constexpr auto kResetCode = std::to_array<std::uint8_t>({
    0xba, layout::kPowerPort & 0xff, layout::kPowerPort >> 8,  // mov dx, the power port
    0xb0, 0x01,                                                // mov al, reset
    0xee,                                                      // out dx, al
    0xf4, 0xeb, 0xfd,                                          // hlt, and again
});
static_assert(kResetCode.size() <= layout::kResetVectorBytes);

bool has_parameter(std::string_view command_line, std::string_view name)
{
    while (!command_line.empty()) {
        const auto end = std::min(command_line.find(' '), command_line.size());
        const auto word = command_line.substr(0, end);
        if (word == name || (word.starts_with(name) && word.substr(name.size()).starts_with("="))) return true;
        command_line.remove_prefix(std::min(end + 1, command_line.size()));
    }
    return false;
}

}  // namespace

std::string complete_command_line(std::string_view wanted)
{
    // The serial port is the only console; there is no PCI, no PIT to check timers against; a panic restarts the guest.
    constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNeeded{{
        {"console", "console=ttyS0"}, {"panic", "panic=1"}, {"no_timer_check", "no_timer_check"}, {"pci", "pci=off"}}};
    std::string line;
    for (const auto& [name, parameter] : kNeeded) {
        if (!has_parameter(wanted, name)) line.append(line.empty() ? "" : " ").append(parameter);
    }
    if (!wanted.empty()) line.append(line.empty() ? "" : " ").append(wanted);
    return line;
}

Machine::Machine(const Config& config, vcpu::System system, GuestRam& ram, ConsoleHub& console, MakeDevices devices)
    : config_{config},
      system_{std::move(system)},
      ram_{ram},
      guest_memory_{ram.bytes(), config.memory},
      console_{console},
      make_devices_{std::move(devices)}
{
    SPLITVISOR_CHECK(ram.bytes().size() == config.memory.value());
}

Ending Machine::run()
{
    while (true) {
        if (const auto status = power_on(); !status) return {ExitStatus::kStartFailed, status.error().message()};
        auto event = wait_for_event();
        switch (event.kind) {
        case BoardEvent::Kind::kPowerOff: return {ExitStatus::kPoweredOff, "powered off"};
        case BoardEvent::Kind::kCrash: return {ExitStatus::kGuestCrashed, "guest crashed: " + event.detail};
        case BoardEvent::Kind::kReset: break;
        }
        power_off();
        log_info("guest restarts", field("restarts", restarts_.fetch_add(1) + 1));
        ram_.forget_all();
    }
}

Result<vcpu::EntryState> Machine::load(std::uint32_t virtio_devices)
{
    const auto kernel = read_file(config_.kernel, kLargestKernel);
    if (!kernel) return kernel.error().in("kernel");
    std::string initrd;
    if (!config_.initrd.empty()) {
        auto content = read_file(config_.initrd, kLargestInitrd);
        if (!content) return content.error().in("initrd");
        initrd = std::move(*content);
    }
    const auto tables = acpi::build_tables({config_.vcpus, virtio_devices}, layout::kAcpi);
    if (!guest_memory_.write(layout::kAcpi, std::span<const std::byte>{tables.image})) {
        return Error{ErrorCode::kNoRoom, "the ACPI tables do not fit into the guest's memory"};
    }
    if (!guest_memory_.write(layout::kResetVector, std::as_bytes(std::span{kResetCode}))) {
        return Error{ErrorCode::kNoRoom, "the reset vector does not fit into the guest's memory"};
    }
    const auto command_line = complete_command_line(config_.command_line);
    return boot::load_kernel(guest_memory_,
                             {bytes_of_text(*kernel), bytes_of_text(initrd), command_line, layout::kAcpi});
}

Status Machine::power_on()
{
    if (config_.vcpus > system_.max_vcpus()) {
        return Error{ErrorCode::kUnsupported, "this host's KVM runs at most " + std::to_string(system_.max_vcpus()) + " vCPUs"};
    }
    auto devices = make_devices_(guest_memory_);
    if (!devices) return devices.error();
    const auto entry = load(static_cast<std::uint32_t>(devices->size()));
    if (!entry) return entry.error();
    auto board = Board::build({system_, guest_memory_, ram_.bytes(), console_, std::move(*devices), config_.vcpus, *entry},
                              [this](BoardEvent event) { on_event(std::move(event)); });
    if (!board) return board.error();
    {
        const std::lock_guard transition{transition_};
        const std::lock_guard lock{mutex_};
        board_ = std::move(*board);
        event_.reset();
        state_ = MachineState::kRunning;
        board_->start();
    }
    changed_.notify_all();
    return {};
}

void Machine::power_off()
{
    std::unique_lock transition{transition_};
    // A pause may have come in between the guest's request and here: it holds the reset back as well.
    while (state() == MachineState::kPaused) {
        transition.unlock();
        (void)wait_for_event();
        transition.lock();
    }
    {
        const std::lock_guard lock{mutex_};
        state_ = MachineState::kRestarting;
    }
    // A vCPU may wait for a remote page. It can't be abandoned, but the process can still be ended meanwhile.
    for (bool said = false; true; said = true) {
        const auto status = board_->stop(kStopMs);
        if (status.ok()) break;
        if (!said) log_warning("restart waits", field("error", status.error()));
    }
    std::unique_ptr<Board> old;
    {
        const std::lock_guard lock{mutex_};
        old = std::move(board_);
    }
}

void Machine::on_event(BoardEvent event)
{
    {
        const std::lock_guard lock{mutex_};
        // The first counts: several vCPUs may write the power port at once.
        if (event_) return;
        event_ = std::move(event);
    }
    changed_.notify_all();
}

BoardEvent Machine::wait_for_event()
{
    std::unique_lock lock{mutex_};
    // What a guest asked for just before it was paused happens when it is resumed.
    changed_.wait(lock, [&] { return event_ && state_ != MachineState::kPaused && pauses_waiting_ == 0; });
    return *event_;
}

Error Machine::not_now() const
{
    return Error{ErrorCode::kUnavailable, "the machine is " + std::string{to_string(state())}};
}

Status Machine::pause()
{
    {
        // A machine that restarts is paused once it runs again, and before it can restart the next time.
        std::unique_lock lock{mutex_};
        ++pauses_waiting_;
        changed_.wait_for(lock, kTransitionPatience, [&] { return state_ != MachineState::kRestarting; });
    }
    const auto status = pause_running();
    {
        const std::lock_guard lock{mutex_};
        --pauses_waiting_;
    }
    changed_.notify_all();
    return status;
}

Status Machine::pause_running()
{
    const std::unique_lock transition{transition_, kTransitionPatience};
    if (!transition.owns_lock()) return not_now();
    if (state() == MachineState::kPaused) return {};
    if (state() != MachineState::kRunning) return not_now();
    // The board can't go away: that takes a transition.
    if (const auto status = board_->pause(kPauseMs); !status) {
        board_->resume();
        return status.error().in("not paused");
    }
    const std::lock_guard lock{mutex_};
    state_ = MachineState::kPaused;
    return {};
}

Status Machine::resume()
{
    const std::unique_lock transition{transition_, kTransitionPatience};
    if (!transition.owns_lock()) return not_now();
    if (state() == MachineState::kRunning) return {};
    if (state() != MachineState::kPaused) return not_now();
    {
        const std::lock_guard lock{mutex_};
        state_ = MachineState::kRunning;
        board_->resume();
    }
    changed_.notify_all();
    return {};
}

Status Machine::press_power_button()
{
    {
        const std::lock_guard lock{mutex_};
        if (board_ && state_ == MachineState::kRunning) {
            board_->press_power_button();
            return {};
        }
    }
    return not_now();
}

MachineState Machine::state() const
{
    const std::lock_guard lock{mutex_};
    return state_;
}

void Machine::add_stats(VnodeStats& stats) const
{
    const std::lock_guard lock{mutex_};
    if (!board_) return;
    stats.exits = board_->exits();
    stats.bus = board_->bus_counters();
    stats.devices = board_->device_stats();
}

}  // namespace splitvisor::vmm
