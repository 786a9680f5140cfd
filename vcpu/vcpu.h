#pragma once

#include <linux/kvm.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/mapping.h"
#include "base/result.h"
#include "base/units.h"
#include "vcpu/kvm.h"

namespace splitvisor::vcpu {

/// What the vCPU does after its exit was handled.
enum class Next { kContinue, kStop };

/// Whoever answers the guest's accesses to ports and to addresses that are not RAM. Called on the thread that runs the
/// vCPU; with several vCPUs by several threads at once. A port access has 1, 2 or 4 bytes, and string instructions
/// arrive as one call an element. A memory access has 1 to 8 bytes, odd numbers where an unaligned one was cut at a page
/// boundary. A read must fill its span. Nothing may throw.
class ExitHandler {
  public:
    virtual ~ExitHandler() = default;
    virtual Next port_read(std::uint16_t port, std::span<std::byte> into) = 0;
    virtual Next port_write(std::uint16_t port, std::span<const std::byte> from) = 0;
    virtual Next mmio_read(Gpa address, std::span<std::byte> into) = 0;
    virtual Next mmio_write(Gpa address, std::span<const std::byte> from) = 0;
};

/// Why the vCPU came back from guest mode.
enum class ExitCause {
    kPortRead,
    kPortWrite,
    kMmioRead,
    kMmioWrite,
    kInterrupted,  ///< a signal: a kick, or one meant for the process
    kShutdown,     ///< triple fault
    kError,        ///< whatever ends the guest but a triple fault
};
inline constexpr std::size_t kExitCauses = 7;
[[nodiscard]] std::string_view to_string(ExitCause cause);
using ExitCounts = std::array<std::uint64_t, kExitCauses>;  ///< by ExitCause

/// Why Vcpu::run returned.
struct RunEnd {
    enum class Kind {
        kKicked,       ///< kick(); the vCPU may run on
        kStopped,      ///< the handler said so; the vCPU may run on
        kTripleFault,  ///< the guest destroyed itself
        kBroken,       ///< KVM can't go on with this guest
    };
    Kind kind;
    std::string detail;  ///< kTripleFault, kBroken: one line for people, with the instruction pointer
};

/// One virtual processor. Everything but kick() and exits() belongs to one thread at a time: KVM serialises the rest by
/// making it wait until KVM_RUN returns.
class Vcpu {
  public:
    /// Installs, once for the process, an empty handler for the signal that kicks vCPUs (SIGRTMIN).
    static Result<Vcpu> create(const Vm& vm, VcpuId id);
    Vcpu(Vcpu&&) noexcept;
    Vcpu& operator=(Vcpu&&) noexcept;
    ~Vcpu();

    [[nodiscard]] VcpuId id() const { return id_; }

    /// Runs the guest and answers its exits until something of RunEnd happens. An access that was answered last is
    /// complete (registers hold the value read, the instruction pointer moved on) at the next run, or after
    /// complete_access.
    [[nodiscard]] RunEnd run(ExitHandler& handler);

    /// Makes the running, or else the next, run() return kKicked. Any thread. A vCPU that waits in the kernel for a
    /// page may come back only when that page arrives (kernels before 6.2).
    void kick();

    /// Lets KVM finish the access that was answered last without entering the guest.
    void complete_access();

    /// By cause, since creation. Any thread.
    [[nodiscard]] ExitCounts exits() const;

    [[nodiscard]] Result<kvm_regs> regs() const;
    [[nodiscard]] Status set_regs(const kvm_regs& regs);
    [[nodiscard]] Result<kvm_sregs> sregs() const;
    [[nodiscard]] Status set_sregs(const kvm_sregs& sregs);

    [[nodiscard]] Status set_cpuid(std::span<const kvm_cpuid_entry2> entries);
    /// Fails with the first register that KVM refuses. Set the CPUID first: which registers exist depends on it.
    [[nodiscard]] Status set_msrs(std::span<const kvm_msr_entry> entries);
    /// The reset state of the x87 and SSE units that firmware would leave behind.
    [[nodiscard]] Status reset_fpu();
    /// Wires LINT0 to ExtINT and LINT1 to NMI as firmware does (Intel SDM 3, 11.5.1). Needs the irqchip.
    [[nodiscard]] Status wire_local_interrupts();

    /// Tells kvmclock that the guest was paused, so that its watchdogs don't bark. Harmless without kvmclock.
    void mark_clock_paused();

  private:
    struct Shared;  // what kick() and exits() touch from other threads; stays in place when the Vcpu moves

    Vcpu(VcpuId id, Fd fd, Mapping run, std::unique_ptr<Shared> shared);
    [[nodiscard]] kvm_run& run_page() const;
    [[nodiscard]] RunEnd run_until_end(ExitHandler& handler);
    [[nodiscard]] RunEnd entry_failure(int error_number);
    [[nodiscard]] Next handle_port(ExitHandler& handler);
    [[nodiscard]] Next handle_mmio(ExitHandler& handler);
    [[nodiscard]] RunEnd end_of_guest(std::uint32_t exit_reason);
    [[nodiscard]] std::string describe_state() const;
    void count(ExitCause cause);

    VcpuId id_;
    Fd fd_;
    Mapping run_;
    std::unique_ptr<Shared> shared_;
};

}  // namespace splitvisor::vcpu
