#include "vcpu/vcpu.h"

#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "vcpu/kvm_lists.h"

namespace splitvisor::vcpu {
namespace {

// Linux 6.8; absent from older headers. The structure lies where the other exit data lies.
constexpr std::uint32_t kExitMemoryFault = 39;
struct MemoryFaultExit {
    std::uint64_t flags;
    std::uint64_t gpa;
    std::uint64_t size;
};

void ignore_kick(int) {}

/// A signal whose handler is empty: its only effect is that KVM_RUN returns EINTR.
Status install_kick_handler()
{
    struct sigaction action {};
    action.sa_handler = ignore_kick;
    static const int result = ::sigaction(SIGRTMIN, &action, nullptr);
    if (result != 0) return Error::from_errno("sigaction for the vCPU kick signal");
    return {};
}

std::string hex(std::uint64_t value)
{
    char text[20];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

std::string describe_internal_error(const kvm_run& run)
{
    std::string text = "KVM internal error " + std::to_string(run.internal.suberror);
    if (run.internal.suberror != KVM_INTERNAL_ERROR_EMULATION) return text;
    text += " (instruction could not be emulated";
    const auto& failure = run.emulation_failure;
    if (failure.ndata >= 3 && (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0) {
        text += ":";
        const std::size_t count = std::min<std::size_t>(failure.insn_size, sizeof failure.insn_bytes);
        for (std::size_t i = 0; i < count; ++i) {
            char byte[4];
            std::snprintf(byte, sizeof byte, " %02x", failure.insn_bytes[i]);
            text += byte;
        }
    }
    return text + ")";
}

}  // namespace

std::string_view to_string(ExitCause cause)
{
    switch (cause) {
    case ExitCause::kPortRead: return "port_read";
    case ExitCause::kPortWrite: return "port_write";
    case ExitCause::kMmioRead: return "mmio_read";
    case ExitCause::kMmioWrite: return "mmio_write";
    case ExitCause::kInterrupted: return "interrupted";
    case ExitCause::kShutdown: return "shutdown";
    case ExitCause::kError: return "error";
    }
    return "unknown";
}

struct Vcpu::Shared {
    std::array<std::atomic<std::uint64_t>, kExitCauses> exits{};
    std::atomic<pid_t> runner{0};     ///< the thread inside run(), 0 for none
    std::atomic<bool> kicked{false};  ///< a kick that run() has not yet answered
};

Vcpu::Vcpu(VcpuId id, Fd fd, Mapping run, std::unique_ptr<Shared> shared)
    : id_{id}, fd_{std::move(fd)}, run_{std::move(run)}, shared_{std::move(shared)}
{
}
Vcpu::Vcpu(Vcpu&&) noexcept = default;
Vcpu& Vcpu::operator=(Vcpu&&) noexcept = default;
Vcpu::~Vcpu() = default;

Result<Vcpu> Vcpu::create(const Vm& vm, VcpuId id)
{
    SPLITVISOR_TRY(install_kick_handler());
    Fd fd{::ioctl(vm.fd_.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(id.value()))};
    if (!fd.valid()) return Error::from_errno("KVM_CREATE_VCPU " + std::to_string(id.value()));
    auto run = Mapping::shared(fd.get(), ByteCount{vm.run_bytes_}, 0);
    if (!run) return run.error().in("run page of vCPU " + std::to_string(id.value()));
    return Vcpu{id, std::move(fd), std::move(*run), std::make_unique<Shared>()};
}

kvm_run& Vcpu::run_page() const { return *reinterpret_cast<kvm_run*>(run_.data()); }

void Vcpu::count(ExitCause cause)
{
    shared_->exits[static_cast<std::size_t>(cause)].fetch_add(1, std::memory_order_relaxed);
}

ExitCounts Vcpu::exits() const
{
    ExitCounts counts{};
    for (std::size_t i = 0; i < kExitCauses; ++i) counts[i] = shared_->exits[i].load(std::memory_order_relaxed);
    return counts;
}

void Vcpu::kick()
{
    // First the flags, then the signal: a thread that is about to enter sees the flag, one inside gets the signal.
    shared_->kicked.store(true);
    std::atomic_ref{run_page().immediate_exit}.store(1);
    if (const auto runner = shared_->runner.load(); runner != 0) {
        ::syscall(SYS_tgkill, ::getpid(), runner, SIGRTMIN);
    }
}

RunEnd Vcpu::run(ExitHandler& handler)
{
    shared_->runner.store(::gettid());
    auto end = run_until_end(handler);
    shared_->runner.store(0);
    return end;
}

RunEnd Vcpu::run_until_end(ExitHandler& handler)
{
    while (true) {
        auto next = Next::kContinue;
        if (::ioctl(fd_.get(), KVM_RUN, 0) != 0) {
            // EAGAIN: a processor that waited for its start-up message was woken by something else.
            if (errno != EINTR && errno != EAGAIN) return entry_failure(errno);
            count(ExitCause::kInterrupted);
            // In this order: a kick that comes in between is either seen here or sets the flag again.
            std::atomic_ref{run_page().immediate_exit}.store(0);
            if (shared_->kicked.exchange(false)) return {RunEnd::Kind::kKicked, {}};
            continue;
        }
        switch (const auto reason = run_page().exit_reason) {
        case KVM_EXIT_IO: next = handle_port(handler); break;
        case KVM_EXIT_MMIO: next = handle_mmio(handler); break;
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN: count(ExitCause::kInterrupted); break;
        default: return end_of_guest(reason);
        }
        if (next == Next::kStop) return {RunEnd::Kind::kStopped, {}};
    }
}

void Vcpu::complete_access()
{
    auto flag = std::atomic_ref{run_page().immediate_exit};
    flag.store(1);
    // Returns EINTR by construction, having finished what was pending.
    ::ioctl(fd_.get(), KVM_RUN, 0);
    flag.store(0);
    if (shared_->kicked.load()) flag.store(1);
}

Next Vcpu::handle_port(ExitHandler& handler)
{
    const auto& io = run_page().io;
    const bool is_write = io.direction == KVM_EXIT_IO_OUT;
    count(is_write ? ExitCause::kPortWrite : ExitCause::kPortRead);
    // size, count and data_offset come from KVM and describe at most one page.
    auto data = run_.bytes().subspan(io.data_offset, std::size_t{io.size} * io.count);
    auto next = Next::kContinue;
    for (; !data.empty(); data = data.subspan(io.size)) {
        const auto element = data.first(io.size);
        const auto wish = is_write ? handler.port_write(io.port, element) : handler.port_read(io.port, element);
        if (wish == Next::kStop) next = Next::kStop;
    }
    return next;
}

Next Vcpu::handle_mmio(ExitHandler& handler)
{
    auto& mmio = run_page().mmio;
    const auto data = std::as_writable_bytes(std::span{mmio.data}).first(mmio.len);
    count(mmio.is_write != 0 ? ExitCause::kMmioWrite : ExitCause::kMmioRead);
    if (mmio.is_write != 0) return handler.mmio_write(Gpa{mmio.phys_addr}, data);
    return handler.mmio_read(Gpa{mmio.phys_addr}, data);
}

RunEnd Vcpu::entry_failure(int error_number)
{
    count(ExitCause::kError);
    const auto& run = run_page();
    std::string detail = Error::from_errno("KVM_RUN", error_number).message();
    if (error_number == EFAULT && run.exit_reason == kExitMemoryFault) {
        MemoryFaultExit fault;
        std::memcpy(&fault, &run.io, sizeof fault);
        detail = "guest memory at gpa=" + hex(fault.gpa) + " cannot be brought in (KVM memory fault)";
    } else if (error_number == EFAULT) {
        detail = "guest memory cannot be brought in (KVM_RUN: bad address)";
    }
    return {RunEnd::Kind::kBroken, detail + " " + describe_state()};
}

RunEnd Vcpu::end_of_guest(std::uint32_t exit_reason)
{
    const auto& run = run_page();
    const bool triple_fault = exit_reason == KVM_EXIT_SHUTDOWN;
    count(triple_fault ? ExitCause::kShutdown : ExitCause::kError);
    std::string detail;
    switch (exit_reason) {
    case KVM_EXIT_SHUTDOWN: detail = "triple fault at"; break;
    case KVM_EXIT_FAIL_ENTRY:
        detail = "the processor refused to enter the guest, reason " + hex(run.fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR: detail = describe_internal_error(run); break;
    case KVM_EXIT_SYSTEM_EVENT: detail = "KVM system event " + std::to_string(run.system_event.type); break;
    default: detail = "unexpected KVM exit " + std::to_string(exit_reason); break;
    }
    return {triple_fault ? RunEnd::Kind::kTripleFault : RunEnd::Kind::kBroken, detail + " " + describe_state()};
}

std::string Vcpu::describe_state() const
{
    const auto general = regs();
    const auto special = sregs();
    if (!general || !special) return "(registers cannot be read)";
    return "rip=" + hex(general->rip) + " rsp=" + hex(general->rsp) + " rflags=" + hex(general->rflags) +
           " cs=" + hex(special->cs.selector) + " cr0=" + hex(special->cr0) + " cr2=" + hex(special->cr2) +
           " cr3=" + hex(special->cr3) + " cr4=" + hex(special->cr4) + " efer=" + hex(special->efer) + " vcpu=" +
           std::to_string(id_.value());
}

Result<kvm_regs> Vcpu::regs() const
{
    kvm_regs regs{};
    if (::ioctl(fd_.get(), KVM_GET_REGS, &regs) != 0) return Error::from_errno("KVM_GET_REGS");
    return regs;
}

Status Vcpu::set_regs(const kvm_regs& regs)
{
    if (::ioctl(fd_.get(), KVM_SET_REGS, &regs) != 0) return Error::from_errno("KVM_SET_REGS");
    return {};
}

Result<kvm_sregs> Vcpu::sregs() const
{
    kvm_sregs sregs{};
    if (::ioctl(fd_.get(), KVM_GET_SREGS, &sregs) != 0) return Error::from_errno("KVM_GET_SREGS");
    return sregs;
}

Status Vcpu::set_sregs(const kvm_sregs& sregs)
{
    if (::ioctl(fd_.get(), KVM_SET_SREGS, &sregs) != 0) return Error::from_errno("KVM_SET_SREGS");
    return {};
}

Status Vcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries)
{
    CpuidList list{entries};
    if (::ioctl(fd_.get(), kKvmSetCpuid2, list.data()) != 0) return Error::from_errno("KVM_SET_CPUID2");
    return {};
}

Status Vcpu::set_msrs(std::span<const kvm_msr_entry> entries)
{
    MsrList list{entries};
    const int done = ::ioctl(fd_.get(), kKvmSetMsrs, list.data());
    if (done < 0) return Error::from_errno("KVM_SET_MSRS");
    if (static_cast<std::size_t>(done) < entries.size()) {
        return Error{ErrorCode::kUnsupported, "KVM refuses MSR " + hex(entries[static_cast<std::size_t>(done)].index)};
    }
    return {};
}

Status Vcpu::reset_fpu()
{
    kvm_fpu fpu{};
    fpu.fcw = 0x37f;     // Intel SDM 1, 8.1.5: all exceptions masked, extended precision
    fpu.mxcsr = 0x1f80;  // Intel SDM 1, 10.2.3: all exceptions masked
    if (::ioctl(fd_.get(), KVM_SET_FPU, &fpu) != 0) return Error::from_errno("KVM_SET_FPU");
    return {};
}

Status Vcpu::wire_local_interrupts()
{
    // Local vector table entries: offset in the APIC page, delivery mode in bits 8 to 10 (Intel SDM 3, 11.5.1).
    constexpr std::size_t kLint0 = 0x350;
    constexpr std::size_t kLint1 = 0x360;
    constexpr std::uint32_t kModeNmi = 4u << 8;
    constexpr std::uint32_t kModeExtInt = 7u << 8;
    kvm_lapic_state lapic{};
    if (::ioctl(fd_.get(), KVM_GET_LAPIC, &lapic) != 0) return Error::from_errno("KVM_GET_LAPIC");
    std::memcpy(lapic.regs + kLint0, &kModeExtInt, sizeof kModeExtInt);
    std::memcpy(lapic.regs + kLint1, &kModeNmi, sizeof kModeNmi);
    if (::ioctl(fd_.get(), KVM_SET_LAPIC, &lapic) != 0) return Error::from_errno("KVM_SET_LAPIC");
    return {};
}

void Vcpu::mark_clock_paused()
{
    // EINVAL means that the guest uses no kvmclock, which is its own business.
    ::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0);
}

}  // namespace splitvisor::vcpu
