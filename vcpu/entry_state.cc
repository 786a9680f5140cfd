#include "vcpu/entry_state.h"

namespace splitvisor::vcpu {
namespace {

// Intel SDM 3, 2.5 (control registers) and 2.2.1 (EFER).
constexpr std::uint64_t kCr0Pe = 1u << 0;
constexpr std::uint64_t kCr0Mp = 1u << 1;
constexpr std::uint64_t kCr0Et = 1u << 4;
constexpr std::uint64_t kCr0Ne = 1u << 5;
constexpr std::uint64_t kCr0Wp = 1u << 16;
constexpr std::uint64_t kCr0Am = 1u << 18;
constexpr std::uint64_t kCr0Pg = 1u << 31;
constexpr std::uint64_t kCr4Pae = 1u << 5;
constexpr std::uint64_t kCr4Osfxsr = 1u << 9;
constexpr std::uint64_t kCr4Osxmmexcpt = 1u << 10;
constexpr std::uint64_t kEferLme = 1u << 8;
constexpr std::uint64_t kEferLma = 1u << 10;
constexpr std::uint64_t kFlagsFixed = 1u << 1;
constexpr std::uint64_t kFlagsIopl3 = 3u << 12;

kvm_segment flat_segment(std::uint8_t type, std::uint16_t selector, std::uint8_t privilege)
{
    kvm_segment segment{};
    segment.limit = 0xffffffff;
    segment.type = type;
    segment.selector = static_cast<std::uint16_t>(selector | privilege);
    segment.present = 1;
    segment.dpl = privilege;
    segment.s = 1;
    segment.g = 1;
    return segment;
}

void set_segments(kvm_sregs& sregs, const EntryState& entry)
{
    constexpr std::uint8_t kCodeReadAccessed = 11;
    constexpr std::uint8_t kDataWriteAccessed = 3;
    constexpr std::uint8_t kBusyTask = 11;
    sregs.cs = flat_segment(kCodeReadAccessed, entry.code_selector, entry.privilege);
    sregs.cs.l = entry.mode == EntryState::Mode::kLong ? 1 : 0;
    sregs.cs.db = entry.mode == EntryState::Mode::kLong ? 0 : 1;
    sregs.ds = flat_segment(kDataWriteAccessed, entry.data_selector, entry.privilege);
    sregs.ds.db = 1;
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    sregs.tr = kvm_segment{};
    sregs.tr.limit = 0x67;
    sregs.tr.type = kBusyTask;
    sregs.tr.present = 1;
    sregs.gdt.base = entry.gdt.value();
    sregs.gdt.limit = entry.gdt_limit;
    sregs.idt = kvm_dtable{};
}

void set_control_registers(kvm_sregs& sregs, const EntryState& entry)
{
    sregs.cr0 = kCr0Pe | kCr0Et;
    sregs.cr2 = sregs.cr3 = sregs.cr4 = 0;
    sregs.efer = 0;
    if (entry.mode == EntryState::Mode::kProtected) return;
    sregs.cr0 |= kCr0Pg;
    sregs.cr3 = entry.page_tables.value();
    sregs.cr4 = kCr4Pae;
    sregs.efer = kEferLme | kEferLma;
    if (entry.privilege == 0) return;
    // User code may use SSE at once, as under an operating system.
    sregs.cr0 |= kCr0Mp | kCr0Ne | kCr0Wp | kCr0Am;
    sregs.cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt;
}

}  // namespace

Status enter_at(Vcpu& vcpu, const EntryState& entry)
{
    auto sregs = vcpu.sregs();
    if (!sregs) return sregs.error();
    set_segments(*sregs, entry);
    set_control_registers(*sregs, entry);
    SPLITVISOR_TRY(vcpu.set_sregs(*sregs));
    kvm_regs regs{};
    regs.rip = entry.instruction;
    regs.rsp = entry.stack;
    regs.rbx = entry.rbx;
    regs.rsi = entry.rsi;
    regs.rflags = kFlagsFixed | (entry.privilege == 3 ? kFlagsIopl3 : 0);
    return vcpu.set_regs(regs);
}

}  // namespace splitvisor::vcpu
