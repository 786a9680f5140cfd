#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/units.h"
#include "vcpu/vcpu.h"

namespace splitvisor::vcpu {

/// Where and how a vCPU starts. All segments are flat: base 0, limit 4 GiB. Interrupts are off.
struct EntryState {
    enum class Mode {
        kLong,       ///< 64-bit, paging on with the tables at `page_tables`
        kProtected,  ///< 32-bit, paging off
    };
    Mode mode = Mode::kLong;
    /// 0 for a kernel. 3 runs the guest in user mode with the right to use ports (IOPL 3).
    std::uint8_t privilege = 0;
    std::uint64_t instruction = 0;  ///< address in guest terms: virtual where paging is on
    std::uint64_t stack = 0;
    Gpa page_tables{};              ///< kLong: the top-level table
    Gpa gdt{};                      ///< the descriptor table, and
    std::uint16_t gdt_limit = 0;    ///< its last byte; 0 for none
    std::uint16_t code_selector = 0x10;
    std::uint16_t data_selector = 0x18;
    std::uint64_t rbx = 0;
    std::uint64_t rsi = 0;
};

/// Sets the general and special registers. The CPUID must be set before: KVM checks control registers against it.
[[nodiscard]] Status enter_at(Vcpu& vcpu, const EntryState& entry);

}  // namespace splitvisor::vcpu
