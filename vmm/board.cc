#include "vmm/board.h"

#include <algorithm>
#include <cstdio>

#include "vcpu/cpuid.h"
#include "vmm/boot/layout.h"

namespace splitvisor::vmm {
namespace {

// Model-specific registers that firmware sets before it starts a kernel (Intel SDM 4, table 2-2).
constexpr std::uint32_t kMsrMiscEnable = 0x1a0;
constexpr std::uint64_t kFastStrings = 1u << 0;
constexpr std::uint32_t kMsrMtrrDefaultType = 0x2ff;
constexpr std::uint64_t kMtrrsOnWriteBack = (1u << 11) | 6;

/// Only registers that KVM lists may be written, but the memory type range registers, which it takes without listing
/// them: those are offered to it one by one and may be refused. Without them Linux leaves its page attribute table off.
Status set_firmware_msrs(vcpu::Vcpu& vcpu, const std::vector<std::uint32_t>& known)
{
    kvm_msr_entry entry{};
    entry.index = kMsrMiscEnable;
    entry.data = kFastStrings;
    if (std::ranges::find(known, kMsrMiscEnable) != known.end()) SPLITVISOR_TRY(vcpu.set_msrs(std::span{&entry, 1}));
    entry.index = kMsrMtrrDefaultType;
    entry.data = kMtrrsOnWriteBack;
    if (const auto status = vcpu.set_msrs(std::span{&entry, 1}); !status) {
        log(LogLevel::kDebug, "memory type registers refused", field("error", status.error()));
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<Board>> Board::build(Parts parts, OnEvent on_event)
{
    auto vm = parts.system.create_vm();
    if (!vm) return vm.error();
    std::unique_ptr<Board> board{new Board{std::move(*vm), parts.memory, parts.console, std::move(on_event)}};
    SPLITVISOR_TRY(board->vm_.set_fixed_pages(layout::kKvmPages));
    SPLITVISOR_TRY(board->vm_.create_irqchip());
    SPLITVISOR_TRY(board->connect_memory(parts.memory, parts.ram));
    SPLITVISOR_TRY(board->add_platform_devices());
    SPLITVISOR_TRY(board->add_virtio_devices(std::move(parts.virtio), parts.memory));
    SPLITVISOR_TRY(board->add_vcpus(parts));
    return board;
}

Board::Board(vcpu::Vm vm, const GuestMemory& memory, ConsoleHub& console, OnEvent on_event)
    : on_event_{std::move(on_event)},
      console_{console},
      vm_{std::move(vm)},
      doorbells_{vm_},
      bus_{memory,
           [this](Gpa gpa) {
               char text[20];
               std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(gpa.value()));
               announce({BoardEvent::Kind::kCrash, "guest memory at gpa=" + std::string{text} + " cannot be brought in"});
           }},
      power_port_{[this](PowerRequest request) { on_power_request(request); }},
      i8042_{[this](PowerRequest request) { on_power_request(request); }}
{
}

Board::~Board()
{
    vcpus_.reset();
    console_.set_receiver({});
}

Status Board::connect_memory(const GuestMemory& memory, std::span<std::byte> ram)
{
    std::uint32_t slot = 0;
    for (const auto& range : memory.ranges()) {
        SPLITVISOR_TRY(vm_.add_memory(slot++, range.start, ram.subspan(range.offset, range.size.value())));
    }
    return {};
}

Status Board::add_platform_devices()
{
    auto serial_line = KvmInterruptLine::create(vm_, layout::kSerialGsi);
    if (!serial_line) return serial_line.error();
    serial_line_ = std::move(*serial_line);
    auto button_line = KvmInterruptLine::create(vm_, layout::kPowerButtonGsi);
    if (!button_line) return button_line.error();
    button_line_ = std::move(*button_line);
    serial_ = std::make_unique<Serial16550>(*serial_line_, console_, [this] { console_.receiver_has_room(); });
    console_.set_receiver([serial = serial_.get()](std::span<const std::byte> bytes) { return serial->receive(bytes); });

    bus_.claim_ports(Port{layout::kSerialPort}, layout::kSerialPorts, *serial_);
    bus_.claim_ports(Port{layout::kI8042Command}, 1, i8042_);
    bus_.claim_ports(Port{layout::kPowerPort}, 1, power_port_);
    bus_.claim_ports(Port{layout::kPmTimerPort}, 4, pm_timer_);
    return {};
}

Status Board::add_virtio_devices(std::vector<VirtioSlot> slots, const GuestMemory& memory)
{
    SPLITVISOR_CHECK(slots.size() <= layout::kMaxVirtioDevices);
    std::uint32_t index = 0;
    for (auto& slot : slots) {
        auto line = KvmInterruptLine::create(vm_, layout::virtio_gsi(index));
        if (!line) return line.error();
        const auto window = layout::virtio_window(index++);
        auto transport = virtio::MmioTransport::create(std::move(slot.device), memory, **line, doorbells_, window);
        if (!transport) return transport.error();
        bus_.claim_memory(window, ByteCount{layout::kVirtioWindowBytes}, **transport);
        virtio_.push_back({std::move(slot.kind), std::move(slot.name), std::move(slot.counters), std::move(*line),
                           std::move(*transport)});
    }
    return {};
}

Status Board::add_vcpus(const Parts& parts)
{
    const auto supported = parts.system.supported_cpuid();
    if (!supported) return supported.error();
    const auto msrs = parts.system.msr_indices();
    if (!msrs) return msrs.error();
    const vcpu::CpuidPolicy policy{parts.vcpus, parts.system.extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
    std::vector<vcpu::Vcpu> vcpus;
    for (std::uint32_t i = 0; i < parts.vcpus; ++i) {
        auto vcpu = vcpu::Vcpu::create(vm_, VcpuId{i});
        if (!vcpu) return vcpu.error();
        SPLITVISOR_TRY(vcpu->set_cpuid(vcpu::make_cpuid(*supported, VcpuId{i}, policy)));
        SPLITVISOR_TRY(set_firmware_msrs(*vcpu, *msrs));
        // The others wait in the in-kernel APIC for the message that starts them (INIT, SIPI).
        if (i == 0) SPLITVISOR_TRY(vcpu::enter_at(*vcpu, parts.entry));
        SPLITVISOR_TRY(vcpu->reset_fpu());
        SPLITVISOR_TRY(vcpu->wire_local_interrupts());
        vcpus.push_back(std::move(*vcpu));
    }
    vcpus_ = std::make_unique<vcpu::VcpuSet>(std::move(vcpus), bus_,
                                             [this](VcpuId, const vcpu::RunEnd& end) { on_vcpu_end(end); });
    return {};
}

void Board::announce(BoardEvent event)
{
    bus_.halt();
    on_event_(std::move(event));
}

void Board::on_power_request(PowerRequest request)
{
    const bool off = request == PowerRequest::kOff;
    announce({off ? BoardEvent::Kind::kPowerOff : BoardEvent::Kind::kReset, {}});
}

void Board::on_vcpu_end(const vcpu::RunEnd& end) { announce({BoardEvent::Kind::kCrash, end.detail}); }

std::vector<DeviceStats> Board::device_stats() const
{
    std::vector<DeviceStats> stats;
    for (const auto& entry : virtio_) {
        DeviceStats device{entry.kind, entry.name, {}};
        if (entry.counters) device.counters = entry.counters();
        const auto transport = entry.transport->counters();
        device.counters.emplace_back("refused_accesses", transport.refused_accesses);
        device.counters.emplace_back("resets", transport.resets);
        device.counters.emplace_back("broken", transport.broken);
        device.counters.emplace_back("software_notifies", transport.software_notifies);
        stats.push_back(std::move(device));
    }
    return stats;
}

}  // namespace splitvisor::vmm
