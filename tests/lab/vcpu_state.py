"""For gdb, attached to a vnode-vmm: what each vCPU is doing, asked of KVM by the vCPU's own thread, which is stopped outside of
it. Layouts are those of linux/kvm.h for x86-64.

    gdb -p PID -batch -x tests/lab/vcpu_state.py
"""

import os
import struct

import gdb

KVM_GET_REGS = 0x8090AE81
KVM_GET_SREGS = 0x8138AE83
KVM_GET_MP_STATE = 0x8004AE98
KVM_GET_LAPIC = 0x8400AE8E
KVM_GET_VCPU_EVENTS = 0x8040AE9F
KVM_GET_IRQCHIP = 0xC208AE62
IOAPIC = 2
MP_STATES = {0: "runnable", 1: "uninitialized", 2: "init received", 3: "halted", 4: "sipi received"}
GENERAL = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()
# Each segment takes 24 bytes, each descriptor table 16.
SREGS_CR0 = 8 * 24 + 2 * 16


def ask(fd, request, size, first=b""):
    """The answer of an ioctl, in bytes; None where it fails."""
    inferior = gdb.selected_inferior()
    inferior.write_memory(BUFFER, first.ljust(size, b"\0"))
    if int(gdb.parse_and_eval(f"((int (*)(int, unsigned long, void *))ioctl)({fd}, {request}ul, (void *){BUFFER})")) != 0:
        return None
    return bytes(inferior.read_memory(BUFFER, size))


def vectors(lapic, offset):
    """The bits of one of the 256-bit registers of the local APIC."""
    words = [struct.unpack_from("<I", lapic, offset + 16 * i)[0] for i in range(8)]
    return [hex(32 * i + bit) for i, word in enumerate(words) for bit in range(32) if word >> bit & 1]


def describe(fd):
    general = dict(zip(GENERAL, struct.unpack_from("<18Q", ask(fd, KVM_GET_REGS, 144))))
    print("  " + " ".join(f"{name}={general[name]:x}" for name in ("rip", "rsp", "rflags", "rax", "rbx", "rcx", "rdx", "rsi", "rdi")))
    sregs = ask(fd, KVM_GET_SREGS, 312)
    cr0, cr2, cr3, cr4, cr8, efer = struct.unpack_from("<6Q", sregs, SREGS_CR0)
    print(f"  cs={struct.unpack_from('<H', sregs, 12)[0]:x} cr0={cr0:x} cr2={cr2:x} cr3={cr3:x} cr4={cr4:x} cr8={cr8:x} efer={efer:x}")
    state = struct.unpack("<I", ask(fd, KVM_GET_MP_STATE, 4))[0]
    print(f"  state={MP_STATES.get(state, state)} events={ask(fd, KVM_GET_VCPU_EVENTS, 64).hex()}")
    lapic = ask(fd, KVM_GET_LAPIC, 1024)
    timer, initial, current = (struct.unpack_from("<I", lapic, offset)[0] for offset in (0x320, 0x380, 0x390))
    print(f"  apic: requested={vectors(lapic, 0x200)} in service={vectors(lapic, 0x100)} timer={timer:x} {initial} {current}")


def describe_ioapic(fd):
    chip = ask(fd, KVM_GET_IRQCHIP, 520, struct.pack("<II", IOAPIC, 0))
    if chip is None:
        return
    base, _, _, requested, _ = struct.unpack_from("<QIIII", chip, 8)
    lines = struct.unpack_from("<24Q", chip, 8 + 24)
    print(f"ioapic: base={base:x} requested={requested:x}")
    for line, entry in enumerate(lines):
        if entry & 0x10000 == 0:
            print(f"  line {line}: {entry:016x}")


def vcpu_frame():
    frame = gdb.newest_frame()
    while frame is not None and "Vcpu::run_until_end" not in (frame.name() or ""):
        frame = frame.older()
    return frame


pid = gdb.selected_inferior().pid
BUFFER = int(gdb.parse_and_eval("((void *(*)(unsigned long))malloc)(4096)"))
for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num):
    thread.switch()
    if (frame := vcpu_frame()) is not None:
        frame.select()
        descriptor = int(gdb.parse_and_eval("this->fd_.fd_"))
        print(f"{thread.name}:")
        describe(descriptor)
for name in os.listdir(f"/proc/{pid}/fd"):
    if "kvm-vm" in os.readlink(f"/proc/{pid}/fd/{name}"):
        describe_ioapic(int(name))
