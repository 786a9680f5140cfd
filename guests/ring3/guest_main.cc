#include "guests/ring3/task.h"

// The guest's own part: ring 3, no operating system, no exception handlers (a fault ends the vCPU).
namespace splitvisor::ring3 {
namespace {

void write_port(std::uint16_t port, std::uint32_t value)
{
    // The host looks at guest memory meanwhile, and other vCPUs write to it.
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

void meet(void*, Step step) { write_port(kMeetingPort, static_cast<std::uint32_t>(step)); }

}  // namespace

extern "C" [[noreturn]] void guest_main(std::uint64_t vcpu)
{
    const auto& parameters = *reinterpret_cast<const Parameters*>(kParameters);
    auto& outcome = *reinterpret_cast<Outcome*>(kOutcomes + vcpu * kPage);
    run_program(Task{parameters, reinterpret_cast<std::byte*>(kArena), static_cast<std::uint32_t>(vcpu), outcome,
                     Meeting{meet, nullptr}});
    while (true) write_port(kDonePort, 0);
}

// The host starts each vCPU here with its number in RSI and a stack that is aligned to 16 bytes.
asm(".section .text.start, \"ax\", @progbits\n"
    ".globl guest_start\n"
    "guest_start:\n"
    "  xorl %ebp, %ebp\n"
    "  movq %rsi, %rdi\n"
    "  call guest_main\n"
    "  ud2\n"
    ".text\n");

}  // namespace splitvisor::ring3
