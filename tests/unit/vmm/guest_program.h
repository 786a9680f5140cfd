#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernel_images.h"

namespace splitvisor::vmm::test {

/// 32-bit code for a guest, byte by byte, with jumps to marks.
class Code {
  public:
    Code& bytes(std::initializer_list<unsigned> values)
    {
        for (const auto value : values) image_.push_back(static_cast<std::byte>(value));
        return *this;
    }
    Code& number(std::uint32_t value)
    {
        poke(image_, image_.size(), value);
        return *this;
    }
    Code& out(std::uint16_t port, unsigned value)  // mov dx, port; mov al, value; out dx, al
    {
        return port_in_dx(port).bytes({0xb0, value, 0xee});
    }
    Code& port_in_dx(std::uint16_t port) { return bytes({0x66, 0xba, port & 0xffu, unsigned{port} >> 8}); }
    Code& in(std::uint16_t port) { return port_in_dx(port).bytes({0xec}); }  // mov dx, port; in al, dx
    Code& store(std::uint32_t address, std::uint32_t value)                  // mov dword [address], value
    {
        return bytes({0xc7, 0x05}).number(address).number(value);
    }
    Code& stop() { return bytes({0xeb, 0xfe}); }  // jmp to itself
    [[nodiscard]] std::size_t mark() const { return image_.size(); }
    /// A jump of two bytes with the given opcode (0xeb always, 0x74 where equal) back to a mark.
    Code& jump_back(unsigned opcode, std::size_t mark)
    {
        return bytes({opcode, static_cast<unsigned>(mark - (image_.size() + 2)) & 0xff});
    }
    /// `body` runs where al is `letter`.
    Code& on(char letter, const Code& body)
    {
        bytes({0x3c, static_cast<unsigned char>(letter), 0x75, static_cast<unsigned>(body.image_.size())});
        image_.insert(image_.end(), body.image_.begin(), body.image_.end());
        return *this;
    }
    [[nodiscard]] const Image& image() const { return image_; }

  private:
    Image image_;
};

/// A kernel that restarts as Linux does without EFI: it returns to real mode and jumps to the reset vector.
inline Image kernel_that_restarts_in_real_mode()
{
    constexpr std::uint32_t kGdt = 0x2000;
    constexpr std::uint32_t kGdtRegister = 0x2100;
    constexpr std::uint32_t kRealMode = 0x3000;
    Code code;
    code.store(kGdt + 8, 0x0000ffff).store(kGdt + 12, 0x00009b00);  // 16-bit code, base 0, 64 KiB
    code.store(kGdtRegister, kGdt << 16 | 15).store(kGdtRegister + 4, 0);
    // mov eax, cr0; and al, 0xfe; mov cr0, eax; jmp 0xffff:0
    code.store(kRealMode, 0x24c0200f).store(kRealMode + 4, 0xc0220ffe);
    code.store(kRealMode + 8, 0xff0000ea).store(kRealMode + 12, 0x000000ff);
    code.bytes({0x0f, 0x01, 0x15}).number(kGdtRegister);         // lgdt
    code.bytes({0xea}).number(kRealMode).bytes({0x08, 0x00});    // jmp 8:kRealMode
    return make_pvh(code.image());
}

/// A kernel that prints "0", or "1" where its memory is not fresh, and a newline, and then obeys single
/// letters from the serial port: p powers off, r resets through ACPI, k through the keyboard controller, t
/// triple-faults, b unmasks the power button, prints b, and powers off when it has been pressed. It returns
/// every other letter.
inline Image obedient_kernel()
{
    constexpr std::uint16_t kSerial = 0x3f8;
    constexpr std::uint16_t kLineStatus = 0x3fd;
    constexpr std::uint16_t kPower = 0x600;
    constexpr std::uint32_t kMarker = 0x200000;
    const auto power_off = Code{}.out(kPower, 0x34).stop();
    Code button;
    button
        .store(0xfee000f0, 0x1ff)  // local APIC on
        .store(0xfec00000, 0x16)   // IOAPIC, pin 3:
        .store(0xfec00010, 0x33)   // vector 0x33, edge, not masked
        .out(kSerial, 'b');
    const auto wait = button.mark();
    button.bytes({0xf7, 0x05})
        .number(0xfee00210)
        .number(1u << 19);  // test dword [IRR 0x20 to 0x3f], vector 0x33
    button.jump_back(0x74, wait);
    button.out(kPower, 0x34).stop();

    Code code;
    code.bytes({0x83, 0x3d}).number(kMarker).bytes({0x00, 0xb0, '0', 0x74, 0x02, 0xb0, '1'});
    code.store(kMarker, 0x12345678);
    code.port_in_dx(kSerial).bytes({0xee}).out(kSerial, '\n');
    const auto poll = code.mark();
    code.in(kLineStatus).bytes({0xa8, 0x01});
    code.jump_back(0x74, poll);
    code.in(kSerial);
    code.on('p', power_off)
        .on('r', Code{}.out(kPower, 0x01).stop())
        .on('k', Code{}.out(0x64, 0xfe).stop())
        .on('t', Code{}.bytes({0x0f, 0x0b}))
        .on('b', button);
    code.bytes({0xee}).jump_back(0xeb, poll);
    return make_pvh(code.image());
}

}  // namespace splitvisor::vmm::test
