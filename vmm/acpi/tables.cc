#include "vmm/acpi/tables.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "base/bytes.h"
#include "base/checked.h"
#include "vmm/boot/layout.h"

namespace splitvisor::vmm::acpi {
namespace {

constexpr std::size_t kHeaderBytes = 36;
constexpr std::size_t kLengthAt = 4;
constexpr std::size_t kChecksumAt = 9;
constexpr std::size_t kTableAlignment = 16;

std::byte checksum(std::span<const std::byte> bytes)
{
    unsigned sum = 0;
    for (const auto byte : bytes) sum += static_cast<unsigned>(byte);
    return static_cast<std::byte>(0u - sum);
}

void put_text(std::span<std::byte> table, std::size_t offset, std::string_view text)
{
    std::ranges::transform(text, table.begin() + static_cast<std::ptrdiff_t>(offset),
                           [](char c) { return static_cast<std::byte>(c); });
}

/// The header all tables but the RSDP start with (section 5.2.6), in front of `body`.
Bytes table(std::string_view signature, std::uint8_t revision, const Bytes& body)
{
    Bytes bytes(kHeaderBytes);
    put_text(bytes, 0, signature);
    store(bytes, kLengthAt, narrow<std::uint32_t>(kHeaderBytes + body.size()));
    store(bytes, 8, revision);
    put_text(bytes, 10, "SPLITV");
    put_text(bytes, 16, "SPLITVSR");
    store(bytes, 24, std::uint32_t{1});
    put_text(bytes, 28, "SPLV");
    store(bytes, 32, std::uint32_t{1});
    bytes.insert(bytes.end(), body.begin(), body.end());
    bytes[kChecksumAt] = checksum(bytes);
    return bytes;
}

/// Generic address structure of a port (section 5.2.3.2).
Bytes port_address(std::uint16_t port, std::uint8_t bits)
{
    constexpr std::uint8_t kSystemIo = 1;
    Bytes bytes(12);
    store(bytes, 0, kSystemIo);
    store(bytes, 1, bits);
    store(bytes, 3, static_cast<std::uint8_t>(bits == 8 ? 1 : 3));  // access size: byte or double word
    store(bytes, 4, std::uint64_t{port});
    return bytes;
}

Bytes power_button()
{
    return device("PWRB", concat({name("_HID", eisa_id("PNP0C0C")), name("_UID", integer(0))}));
}

/// The generic event device (section 5.6.9): its one interrupt means the power button.
Bytes event_device()
{
    constexpr std::uint8_t kButtonPressed = 0x80;
    const auto on_event = if_equal(argument(0), integer(layout::kPowerButtonGsi), notify("\\_SB.PWRB", kButtonPressed));
    return device("GED0", concat({name("_HID", string("ACPI0013")), name("_UID", integer(0)),
                                  name("_CRS", resources({edge_interrupt(layout::kPowerButtonGsi)})),
                                  method("_EVT", 1, on_event)}));
}

Bytes serial_port()
{
    return device("COM1", concat({name("_HID", eisa_id("PNP0501")), name("_UID", integer(1)),
                                  name("_CRS", resources({io_ports(layout::kSerialPort, layout::kSerialPorts),
                                                          edge_interrupt(layout::kSerialGsi)}))}));
}

Bytes virtio_device(std::uint32_t index)
{
    char object[5];
    std::snprintf(object, sizeof object, "VR%02X", index & 0xff);
    const auto window = narrow<std::uint32_t>(layout::virtio_window(index).value());
    constexpr auto kBytes = static_cast<std::uint32_t>(layout::kVirtioWindowBytes);
    return device(object, concat({name("_HID", string("LNRO0005")), name("_UID", integer(index)),
                                  name("_CCA", integer(1)),
                                  name("_CRS", resources({memory_window(window, kBytes),
                                                          edge_interrupt(layout::virtio_gsi(index))}))}));
}

Bytes build_dsdt(const MachineDescription& machine)
{
    constexpr std::uint8_t kSoftOff = 5;
    Bytes devices = concat({power_button(), event_device(), serial_port()});
    for (std::uint32_t i = 0; i < machine.virtio_devices; ++i) devices = concat({devices, virtio_device(i)});
    const auto sleep = name("\\_S5", package({integer(kSoftOff), integer(0), integer(0), integer(0)}));
    return table("DSDT", 2, concat({sleep, scope("\\_SB", devices)}));
}

/// Fixed ACPI description table (section 5.2.9).
Bytes build_fadt(Gpa dsdt)
{
    constexpr std::size_t kBytes = 276;
    constexpr std::uint16_t kNoVga = 1u << 2;
    constexpr std::uint16_t kNoCmosClock = 1u << 5;
    constexpr std::uint32_t kPowerButtonIsDevice = 1u << 4;
    constexpr std::uint32_t kNoSleepButton = 1u << 5;
    constexpr std::uint32_t kTimerHas32Bits = 1u << 8;
    constexpr std::uint32_t kHasResetRegister = 1u << 10;
    constexpr std::uint32_t kHardwareReduced = 1u << 20;
    constexpr std::uint8_t kResetValue = 1;
    Bytes fields(kBytes - kHeaderBytes);
    const std::span<std::byte> all{fields};
    const auto at = [](std::size_t offset) { return offset - kHeaderBytes; };
    const auto put_address = [&](std::size_t offset, const Bytes& address) {
        std::ranges::copy(address, all.begin() + static_cast<std::ptrdiff_t>(at(offset)));
    };
    store(all, at(40), static_cast<std::uint32_t>(dsdt.value()));
    store(all, at(76), std::uint32_t{layout::kPmTimerPort});
    store(all, at(91), std::uint8_t{4});
    store(all, at(109), static_cast<std::uint16_t>(kNoVga | kNoCmosClock));
    store(all, at(112),
          kPowerButtonIsDevice | kNoSleepButton | kTimerHas32Bits | kHasResetRegister | kHardwareReduced);
    put_address(116, port_address(layout::kPowerPort, 8));
    store(all, at(128), kResetValue);
    store(all, at(131), std::uint8_t{4});  // minor version: ACPI 6.4
    store(all, at(140), dsdt.value());
    put_address(208, port_address(layout::kPmTimerPort, 32));
    put_address(244, port_address(layout::kPowerPort, 8));
    put_address(256, port_address(layout::kPowerPort, 8));
    put_text(all, at(268), "SPLITVSR");
    return table("FACP", 6, fields);
}

/// Multiple APIC description table (section 5.2.12).
Bytes build_madt(const MachineDescription& machine)
{
    Bytes body(8);
    store(body, 0, static_cast<std::uint32_t>(layout::kLocalApic.value()));
    const auto append = [&](std::initializer_list<unsigned> bytes) {
        for (const auto byte : bytes) body.push_back(static_cast<std::byte>(byte));
    };
    for (std::uint32_t id = 0; id < machine.vcpus; ++id) append({0, 8, id, id, 1, 0, 0, 0});  // enabled
    const auto ioapic = static_cast<std::uint32_t>(layout::kIoApic.value());
    append({1, 12, 0, 0, ioapic & 0xff, (ioapic >> 8) & 0xff, (ioapic >> 16) & 0xff, ioapic >> 24, 0, 0, 0, 0});
    append({4, 6, 0xff, 0, 0, 1});  // LINT1 of every processor is NMI
    return table("APIC", 5, body);
}

Bytes build_xsdt(std::initializer_list<Gpa> tables)
{
    Bytes body(tables.size() * sizeof(std::uint64_t));
    std::size_t offset = 0;
    for (const auto where : tables) {
        store(body, offset, where.value());
        offset += sizeof(std::uint64_t);
    }
    return table("XSDT", 1, body);
}

/// Root system description pointer, revision 2 (section 5.2.5.3).
Bytes build_rsdp(Gpa xsdt)
{
    constexpr std::size_t kFirstPart = 20;
    Bytes bytes(36);
    put_text(bytes, 0, "RSD PTR ");
    put_text(bytes, 9, "SPLITV");
    store(bytes, 15, std::uint8_t{2});
    store(bytes, 20, static_cast<std::uint32_t>(bytes.size()));
    store(bytes, 24, xsdt.value());
    bytes[8] = checksum(std::span{bytes}.first(kFirstPart));
    bytes[32] = checksum(bytes);
    return bytes;
}

/// Appends a table to the image, aligned, and says where it lies.
Gpa append(Bytes& image, Gpa where, const Bytes& table_bytes)
{
    image.resize((image.size() + kTableAlignment - 1) / kTableAlignment * kTableAlignment);
    const auto address = where + image.size();
    image.insert(image.end(), table_bytes.begin(), table_bytes.end());
    return address;
}

}  // namespace

Tables build_tables(const MachineDescription& machine, Gpa where)
{
    SPLITVISOR_CHECK(machine.vcpus >= 1 && machine.vcpus <= kMaxVcpus);
    SPLITVISOR_CHECK(machine.virtio_devices <= layout::kMaxVirtioDevices);
    Tables tables;
    tables.image.resize(build_rsdp(where).size());
    tables.dsdt = build_dsdt(machine);
    tables.fadt = build_fadt(append(tables.image, where, tables.dsdt));
    const auto fadt = append(tables.image, where, tables.fadt);
    tables.madt = build_madt(machine);
    const auto madt = append(tables.image, where, tables.madt);
    tables.xsdt = build_xsdt({fadt, madt});
    const auto xsdt = append(tables.image, where, tables.xsdt);
    std::ranges::copy(build_rsdp(xsdt), tables.image.begin());
    SPLITVISOR_CHECK(tables.image.size() <= layout::kAcpiBytes);
    return tables;
}

}  // namespace splitvisor::vmm::acpi
