#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include "fixtures.h"
#include "vmm/acpi/tables.h"
#include "vmm/boot/layout.h"

namespace splitvisor::vmm::test {
namespace {

using acpi::Bytes;

unsigned sum_of(std::span<const std::byte> bytes)
{
    unsigned sum = 0;
    for (const auto byte : bytes) sum += static_cast<unsigned>(byte);
    return sum & 0xff;
}

std::string signature_of(std::span<const std::byte> bytes, std::size_t length = 4)
{
    return {reinterpret_cast<const char*>(bytes.data()), length};
}

/// What `iasl` says and writes. It comes with acpica-tools (scripts/install-deps).
class Iasl {
  public:
    /// Disassembles a table into its source.
    std::string disassemble(const Bytes& table)
    {
        folder_.write("table.aml", {reinterpret_cast<const char*>(table.data()), table.size()});
        std::filesystem::remove(folder_ / "table.dsl");
        run("-d table.aml");
        return folder_.read("table.dsl");
    }
    /// Compiles what was disassembled last: errors and warnings of grammar show only so.
    std::string compile()
    {
        run("-p again table.dsl");
        return folder_.read("messages");
    }

  private:
    void run(const std::string& arguments)
    {
        const auto command = "cd " + folder_.path() + " && iasl " + arguments + " >messages 2>&1";
        const int status = std::system(command.c_str());
        BOOST_REQUIRE_MESSAGE(status == 0, command << ": status " << status << "\n"
                                                   << folder_.read("messages"));
        const auto messages = folder_.read("messages");
        for (const char* bad : {"Error ", "Warning ", "nvalid", "ncorrect", "Could not"}) {
            BOOST_TEST(!contains(messages, bad), messages);
        }
    }

    TemporaryFolder folder_;
};

std::string hex(std::uint64_t value, int digits)
{
    char text[24];
    std::snprintf(text, sizeof text, "%0*llX", digits, static_cast<unsigned long long>(value));
    return text;
}

/// The text of one device's block.
std::string device_block(const std::string& source, const std::string& name)
{
    const auto start = source.find("Device (" + name + ")");
    if (start == std::string::npos) return {};
    return source.substr(start, source.find("Device (", start + 1) - start);
}

constexpr std::array kVcpus{1u, 2u, 17u, acpi::kMaxVcpus};
constexpr std::array kDevices{0u, 1u, 2u, layout::kMaxVirtioDevices};

}  // namespace

BOOST_AUTO_TEST_SUITE(acpi_tables)

BOOST_DATA_TEST_CASE(can_be_followed_from_the_root_and_sum_up_to_zero,
                     boost::unit_test::data::make(kVcpus) * boost::unit_test::data::make(kDevices), vcpus,
                     devices)
{
    const auto tables = acpi::build_tables({vcpus, devices}, layout::kAcpi);
    BOOST_TEST(tables.image.size() <= layout::kAcpiBytes);
    const LocalMemory memory{kMiB};
    BOOST_REQUIRE(memory->write(layout::kAcpi, std::span<const std::byte>{tables.image}));
    const auto table_at = [&](Gpa where) {
        BOOST_TEST(where.value() % 16 == 0u);
        const auto length = memory.at<std::uint32_t>(where + 4);
        BOOST_REQUIRE(length <= tables.image.size());
        auto bytes = memory.bytes(where, length);
        BOOST_TEST(sum_of(bytes) == 0u, signature_of(bytes));
        return bytes;
    };
    const auto root = memory.bytes(layout::kAcpi, 36);
    BOOST_TEST(signature_of(root, 8) == "RSD PTR ");
    BOOST_TEST(sum_of(std::span{root}.first(20)) == 0u);
    BOOST_TEST(sum_of(root) == 0u);
    const auto xsdt = table_at(Gpa{load<std::uint64_t>(root, 24)});
    BOOST_TEST(signature_of(xsdt) == "XSDT");
    BOOST_REQUIRE(xsdt.size() == 36 + 2 * 8u);
    const auto fadt = table_at(Gpa{load<std::uint64_t>(xsdt, 36)});
    BOOST_TEST(signature_of(fadt) == "FACP");
    const auto dsdt = table_at(Gpa{load<std::uint64_t>(fadt, 140)});
    BOOST_TEST((dsdt == tables.dsdt));
    BOOST_TEST(load<std::uint32_t>(fadt, 40) == load<std::uint64_t>(fadt, 140));
    const auto madt = table_at(Gpa{load<std::uint64_t>(xsdt, 44)});
    BOOST_TEST(signature_of(madt) == "APIC");
}

BOOST_DATA_TEST_CASE(describe_each_virtio_device_where_it_is, boost::unit_test::data::make(kDevices), devices)
{
    Iasl iasl;
    const auto source = iasl.disassemble(acpi::build_tables({2, devices}, layout::kAcpi).dsdt);
    for (std::uint32_t i = 0; i < layout::kMaxVirtioDevices + 1; ++i) {
        const auto block = device_block(source, "VR" + hex(i, 2));
        BOOST_TEST(block.empty() == (i >= devices));
        if (block.empty()) continue;
        BOOST_TEST(contains(block, "Name (_HID, \"LNRO0005\")"), block);
        BOOST_TEST(
            contains(block, "0x" + hex(layout::virtio_window(i).value(), 8) + ",         // Address Base"),
            block);
        BOOST_TEST(contains(block, "0x00001000,         // Address Length"), block);
        BOOST_TEST(contains(block, "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"), block);
        BOOST_TEST(contains(block, "0x" + hex(layout::virtio_gsi(i), 8) + ",\n"), block);
    }
    BOOST_TEST(contains(iasl.compile(), "0 Errors, 0 Warnings"));
}

BOOST_AUTO_TEST_CASE(describe_the_platform_devices)
{
    Iasl iasl;
    const auto source = iasl.disassemble(acpi::build_tables({1, 0}, layout::kAcpi).dsdt);
    BOOST_TEST(contains(source, "Name (\\_S5, Package (0x04)"));
    BOOST_TEST(contains(device_block(source, "PWRB"), "EisaId (\"PNP0C0C\")"));
    const auto events = device_block(source, "GED0");
    BOOST_TEST(contains(events, "\"ACPI0013\""));
    BOOST_TEST(contains(events, "0x00000003,\n"));
    BOOST_TEST(contains(events, "If ((Arg0 == 0x03))"));
    BOOST_TEST(contains(events, "Notify (\\_SB.PWRB, 0x80)"));
    const auto serial = device_block(source, "COM1");
    BOOST_TEST(contains(serial, "EisaId (\"PNP0501\")"));
    BOOST_TEST(contains(serial, "0x03F8,             // Range Minimum"));
    BOOST_TEST(contains(serial, "0x00000004,\n"));
}

BOOST_AUTO_TEST_CASE(say_how_to_power_off_and_reset)
{
    Iasl iasl;
    const auto source = iasl.disassemble(acpi::build_tables({1, 0}, layout::kAcpi).fadt);
    for (const char* line :
         {"Hardware Reduced (V5) : 1", "Reset Register Supported (V2) : 1", "Value to cause reset : 01",
          "32-bit PM Timer (V1) : 1", "VGA Not Present (V4) : 1", "CMOS RTC Not Present (V5) : 1",
          "8042 Present on ports 60/64 (V2) : 0"}) {
        BOOST_TEST(contains(source, line), line);
    }
    const auto register_at = [&](const char* name, std::uint64_t port, const char* width) {
        const auto start = source.find(std::string{name} + " : [Generic Address Structure]");
        BOOST_REQUIRE(start != std::string::npos);
        const auto block = source.substr(start, 600);
        BOOST_TEST(contains(block, "Space ID : 01 [SystemIO]"), block);
        BOOST_TEST(contains(block, std::string{"Bit Width : "} + width), block);
        BOOST_TEST(contains(block, "Address : " + hex(port, 16)), block);
    };
    register_at("Reset Register", layout::kPowerPort, "08");
    register_at("Sleep Control Register", layout::kPowerPort, "08");
    register_at("Sleep Status Register", layout::kPowerPort, "08");
    register_at("PM Timer Block", layout::kPmTimerPort, "20");
}

BOOST_DATA_TEST_CASE(count_the_processors, boost::unit_test::data::make(kVcpus), vcpus)
{
    const auto madt = acpi::build_tables({vcpus, 0}, layout::kAcpi).madt;
    std::vector<unsigned> apic_ids;
    std::vector<std::uint32_t> ioapics;
    for (std::size_t at = 44; at < madt.size();) {
        const auto type = load<std::uint8_t>(madt, at);
        const auto length = load<std::uint8_t>(madt, at + 1);
        BOOST_REQUIRE(length >= 2u);
        BOOST_REQUIRE(at + length <= madt.size());
        if (type == 0) {
            apic_ids.push_back(load<std::uint8_t>(madt, at + 3));
            BOOST_TEST(load<std::uint8_t>(madt, at + 2) == apic_ids.back());
            BOOST_TEST(load<std::uint32_t>(madt, at + 4) == 1u);
        }
        if (type == 1) ioapics.push_back(load<std::uint32_t>(madt, at + 4));
        at += length;
    }
    BOOST_TEST(apic_ids.size() == vcpus);
    for (unsigned i = 0; i < apic_ids.size(); ++i) BOOST_TEST(apic_ids[i] == i);
    BOOST_TEST(ioapics == std::vector<std::uint32_t>{0xfec00000u}, boost::test_tools::per_element());
    BOOST_TEST(load<std::uint32_t>(madt, 36) == 0xfee00000u);
    BOOST_TEST(load<std::uint32_t>(madt, 40) == 0u);  // no 8259 to be silenced
    BOOST_TEST(contains(Iasl{}.disassemble(madt), "Local Apic Address : FEE00000"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
