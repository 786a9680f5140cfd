#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "vmm/guest_memory.h"

namespace splitvisor::vmm::layout {

// The guest-physical memory map. Everything that has a fixed place has it here; a test checks that nothing overlaps.

// What the loader leaves for the kernel in the first 640 KiB, which the kernel may reuse once it has read it.
inline constexpr Gpa kGdt{0x500};
inline constexpr Gpa kPvhStartInfo{0x6000};
inline constexpr Gpa kZeroPage{0x7000};
inline constexpr Gpa kPageTables{0x9000};  ///< top level, one page of the second, four of the third
inline constexpr std::uint64_t kPageTablesBytes = 6 * kPageBytes;
inline constexpr Gpa kCommandLine{0x20000};
inline constexpr std::uint64_t kCommandLineBytes = 0x10000;

/// RAM below the hole that PCs keep for firmware; in that hole are the ACPI tables, RSDP first, and where real mode resets.
inline constexpr Gpa kLowRamEnd{0x9fc00};
inline constexpr Gpa kAcpi{0xe0000};
inline constexpr std::uint64_t kAcpiBytes = 0x1fff0;
inline constexpr Gpa kResetVector{0xffff0};
inline constexpr std::uint64_t kResetVectorBytes = 16;
inline constexpr Gpa kHighRamStart{kMiB};

// Between 3 and 4 GiB. A PCI configuration window has room at 0xe0000000.
inline constexpr Gpa kVirtioWindows{0xd0000000};
inline constexpr std::uint64_t kVirtioWindowBytes = 0x1000;
inline constexpr Gpa kIoApic{0xfec00000};
inline constexpr Gpa kLocalApic{0xfee00000};
inline constexpr Gpa kKvmPages{0xfffbc000};  ///< identity map and task state segment of KVM
inline constexpr std::uint64_t kKvmPagesBytes = 4 * kPageBytes;

// Interrupt lines: pins of the one IOAPIC, all edge-triggered.
inline constexpr std::uint32_t kIoApicPins = 24;
inline constexpr std::uint32_t kPowerButtonGsi = 3;
inline constexpr std::uint32_t kSerialGsi = 4;
inline constexpr std::uint32_t kFirstVirtioGsi = 5;
inline constexpr std::uint32_t kMaxVirtioDevices = kIoApicPins - kFirstVirtioGsi;

// Ports.
inline constexpr std::uint16_t kI8042Command = 0x64;
inline constexpr std::uint16_t kSerialPort = 0x3f8;
inline constexpr std::uint16_t kSerialPorts = 8;
inline constexpr std::uint16_t kPowerPort = 0x600;    ///< ACPI sleep control, sleep status and reset register
inline constexpr std::uint16_t kPmTimerPort = 0x608;  ///< 4 bytes

[[nodiscard]] constexpr Gpa virtio_window(std::uint32_t index) { return kVirtioWindows + index * kVirtioWindowBytes; }
[[nodiscard]] constexpr std::uint32_t virtio_gsi(std::uint32_t index) { return kFirstVirtioGsi + index; }

/// What the firmware's map (e820) tells the kernel.
struct MapEntry {
    enum class Type : std::uint32_t { kRam = 1, kReserved = 2 };
    Gpa start;
    ByteCount size;
    Type type;
};
[[nodiscard]] std::vector<MapEntry> firmware_map(ByteCount memory);

/// The end of the RAM that lies below 4 GiB.
[[nodiscard]] Gpa low_ram_end(ByteCount memory);

}  // namespace splitvisor::vmm::layout
