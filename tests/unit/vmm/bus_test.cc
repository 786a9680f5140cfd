#include "vmm/bus/bus.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <boost/test/unit_test.hpp>
#include <csignal>

#include "fixtures.h"

namespace splitvisor::vmm::test {
namespace {

/// Answers with its own letter and writes down what it was asked.
class Letter final : public IoDevice {
  public:
    explicit Letter(char letter) : letter_{letter} {}
    void read(std::uint64_t offset, std::span<std::byte> into) override
    {
        std::ranges::fill(into, static_cast<std::byte>(letter_));
        note('r', offset, into.size());
    }
    void write(std::uint64_t offset, std::span<const std::byte> from) override
    {
        note('w', offset, from.size());
    }

    std::string log;

  private:
    void note(char kind, std::uint64_t offset, std::size_t bytes)
    {
        log += std::string{kind} + std::to_string(offset) + ":" + std::to_string(bytes) + " ";
    }
    char letter_;
};

struct BusFixture {
    std::string port_read(std::uint16_t port, std::size_t bytes)
    {
        std::string text(bytes, '?');
        last = bus.port_read(port, std::as_writable_bytes(std::span{text}));
        return text;
    }
    std::string mmio_read(std::uint64_t address, std::size_t bytes)
    {
        std::string text(bytes, '?');
        last = bus.mmio_read(Gpa{address}, std::as_writable_bytes(std::span{text}));
        return text;
    }
    void port_write(std::uint16_t port, std::size_t bytes)
    {
        last = bus.port_write(port, std::vector<std::byte>(bytes));
    }
    void mmio_write(std::uint64_t address, std::size_t bytes)
    {
        last = bus.mmio_write(Gpa{address}, std::vector<std::byte>(bytes));
    }
    static std::string ones(std::size_t bytes) { return std::string(bytes, '\xff'); }

    LocalMemory memory{kMiB};
    std::vector<std::uint64_t> ram_exits;
    Bus bus{*memory, [this](Gpa gpa) { ram_exits.push_back(gpa.value()); }};
    Letter a{'a'};
    Letter b{'b'};
    vcpu::Next last = vcpu::Next::kContinue;
};

/// Whether `action` ends the process by a failed check.
template <typename Action>
bool aborts(Action action)
{
    const auto child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
        std::signal(SIGABRT, SIG_DFL);
        const rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        ::close(STDERR_FILENO);
        action();
        ::_exit(0);
    }
    int status = 0;
    BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(bus, BusFixture)

BOOST_AUTO_TEST_CASE(brings_each_access_to_the_device_that_has_the_window)
{
    bus.claim_ports(Port{0x10}, 4, a);
    bus.claim_ports(Port{0x14}, 4, b);
    bus.claim_memory(Gpa{0xd0000000}, ByteCount{0x1000}, b);
    bus.claim_memory(Gpa{0xcffff000}, ByteCount{0x1000}, a);
    BOOST_TEST(port_read(0x10, 4) == "aaaa");
    BOOST_TEST(port_read(0x13, 1) == "a");
    BOOST_TEST(port_read(0x14, 2) == "bb");
    BOOST_TEST(mmio_read(0xd0000ff8, 8) == "bbbbbbbb");
    BOOST_TEST(mmio_read(0xcfffffff, 1) == "a");
    port_write(0x17, 1);
    mmio_write(0xcffff000, 4);
    BOOST_TEST(a.log == "r0:4 r3:1 r4095:1 w0:4 ");
    BOOST_TEST(b.log == "r0:2 r4088:8 w3:1 ");
    BOOST_TEST(bus.counters().unclaimed_ports + bus.counters().unclaimed_memory == 0u);
}

BOOST_AUTO_TEST_CASE(answers_what_nobody_claims_with_ones_and_counts_it)
{
    bus.claim_ports(Port{0x10}, 4, a);
    bus.claim_memory(Gpa{0xd0000000}, ByteCount{0x1000}, a);
    for (const auto port : std::array<std::uint16_t, 4>{0, 0xf, 0x14, 0xffff}) {
        for (const std::size_t bytes : {1, 2, 4}) {
            BOOST_TEST(port_read(port, bytes) == ones(bytes));
            port_write(port, bytes);
        }
    }
    for (const std::uint64_t address : {0xcfffffffull, 0xd0001000ull, 0xfffffffffffffff8ull, ~0ull}) {
        for (const std::size_t bytes : {1, 2, 4, 8}) {
            BOOST_TEST(mmio_read(address, bytes) == ones(bytes));
            mmio_write(address, bytes);
        }
    }
    BOOST_TEST(a.log == "");
    BOOST_TEST(bus.counters().unclaimed_ports == 24u);
    BOOST_TEST(bus.counters().unclaimed_memory == 32u);
    BOOST_TEST((last == vcpu::Next::kContinue));
}

BOOST_AUTO_TEST_CASE(lets_no_access_through_that_crosses_an_edge_or_has_an_odd_width)
{
    bus.claim_ports(Port{0x10}, 4, a);
    bus.claim_ports(Port{0x14}, 4, b);
    bus.claim_memory(Gpa{0xd0000000}, ByteCount{0x1000}, a);
    BOOST_TEST(port_read(0x12, 4) == ones(4));
    BOOST_TEST(port_read(0x0f, 2) == ones(2));
    BOOST_TEST(port_read(0x17, 2) == ones(2));
    BOOST_TEST(mmio_read(0xd0000ffc, 8) == ones(8));
    BOOST_TEST(mmio_read(0xcfffffff, 2) == ones(2));
    for (const std::size_t odd : {3, 5, 6, 7}) {
        BOOST_TEST(mmio_read(0xd0000000, odd) == ones(odd));
        mmio_write(0xd0000000, odd);
    }
    BOOST_TEST(a.log == "");
    BOOST_TEST(b.log == "");
}

BOOST_AUTO_TEST_CASE(refuses_windows_that_overlap)
{
    bus.claim_ports(Port{0x10}, 4, a);
    bus.claim_memory(Gpa{0x10000000}, ByteCount{0x1000}, a);
    BOOST_TEST(aborts([&] { bus.claim_ports(Port{0x10}, 4, b); }));
    BOOST_TEST(aborts([&] { bus.claim_ports(Port{0x13}, 1, b); }));
    BOOST_TEST(aborts([&] { bus.claim_ports(Port{0x0f}, 2, b); }));
    BOOST_TEST(aborts([&] { bus.claim_ports(Port{0x00}, 0xff, b); }));
    BOOST_TEST(aborts([&] { bus.claim_memory(Gpa{0x10000fff}, ByteCount{1}, b); }));
    BOOST_TEST(aborts([&] { bus.claim_memory(Gpa{0x0fffffff}, ByteCount{0x2000}, b); }));
    BOOST_TEST(!aborts([&] {
        bus.claim_ports(Port{0x0c}, 4, b);
        bus.claim_ports(Port{0x14}, 1, b);
        bus.claim_memory(Gpa{0x10001000}, ByteCount{1}, b);
    }));
}

BOOST_AUTO_TEST_CASE(never_makes_up_the_content_of_ram)
{
    mmio_read(0x1234, 4);
    BOOST_TEST((last == vcpu::Next::kStop));
    BOOST_TEST(ram_exits == std::vector<std::uint64_t>{0x1234}, boost::test_tools::per_element());
    mmio_write(kMiB - 1, 1);
    BOOST_TEST(ram_exits.size() == 2u);
    mmio_write(kMiB, 1);
    BOOST_TEST(ram_exits.size() == 2u);
}

BOOST_AUTO_TEST_CASE(stops_every_vcpu_once_halted)
{
    bus.claim_ports(Port{0x10}, 4, a);
    port_write(0x10, 1);
    BOOST_TEST((last == vcpu::Next::kContinue));
    bus.halt();
    port_write(0x10, 1);
    BOOST_TEST((last == vcpu::Next::kStop));
    port_read(0x99, 1);
    BOOST_TEST((last == vcpu::Next::kStop));
    mmio_read(0xd0000000, 4);
    BOOST_TEST((last == vcpu::Next::kStop));
    BOOST_TEST(a.log == "w0:1 w0:1 ");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(guest_memory)

BOOST_AUTO_TEST_CASE(lies_below_and_above_the_hole)
{
    const LocalMemory memory{3 * kGiB + 2 * kPageBytes};
    BOOST_REQUIRE(memory->ranges().size() == 2u);
    BOOST_TEST((memory->line_of(Gpa{3 * kGiB - 1}) == Line{0xbffff}));
    BOOST_TEST((memory->line_of(Gpa{4 * kGiB}) == Line{0xc0000}));
    BOOST_TEST((memory->line_of(Gpa{4 * kGiB + 2 * kPageBytes - 1}) == Line{0xc0001}));
    for (const std::uint64_t outside :
         {3 * kGiB, 4 * kGiB - 1, 4 * kGiB + 2 * kPageBytes, ~std::uint64_t{0}}) {
        BOOST_TEST(!memory->line_of(Gpa{outside}).has_value());
    }
    BOOST_REQUIRE(memory->write(Gpa{4 * kGiB}, std::uint32_t{42}));
    BOOST_TEST(memory->host_range(Gpa{0}, 3 * kGiB)->data() + 3 * kGiB ==
               memory->host_range(Gpa{4 * kGiB}, 4)->data());
    BOOST_TEST(LocalMemory { 3 * kGiB } -> ranges().size() == 1u);
}

BOOST_AUTO_TEST_CASE(lets_no_access_leave_it)
{
    const LocalMemory memory{3 * kGiB + 2 * kPageBytes};
    const std::array<std::byte, 16> bytes{};
    for (const std::uint64_t wild :
         {3 * kGiB - 15, 3 * kGiB, 3 * kGiB + 1, 4 * kGiB - 8, 4 * kGiB + 2 * kPageBytes - 15,
          4 * kGiB + 2 * kPageBytes, ~std::uint64_t{0}, ~std::uint64_t{0} - 15}) {
        std::array<std::byte, 16> into;
        BOOST_TEST(!memory->read(Gpa{wild}, std::span{into}));
        BOOST_TEST(!memory->write(Gpa{wild}, std::span{bytes}));
        BOOST_TEST(!memory->host_range(Gpa{wild}, 16).has_value());
    }
    for (const std::uint64_t good :
         {std::uint64_t{0}, 3 * kGiB - 16, 4 * kGiB, 4 * kGiB + 2 * kPageBytes - 16}) {
        BOOST_TEST(memory->write(Gpa{good}, std::span{bytes}));
    }
    for (const std::uint64_t length :
         {3 * kGiB + 1, 4 * kGiB, ~std::uint64_t{0}, ~std::uint64_t{0} - kPageBytes}) {
        BOOST_TEST(!memory->host_range(Gpa{0}, length).has_value());
        BOOST_TEST(!memory->host_range(Gpa{kPageBytes}, length).has_value());
        BOOST_TEST(!memory->host_range(Gpa{4 * kGiB}, length).has_value());
    }
}

BOOST_AUTO_TEST_CASE(writes_what_a_span_shows_whatever_kind_of_span)
{
    const LocalMemory memory{kMiB};
    const std::array<std::byte, 4> bytes{std::byte{'t'}, std::byte{'e'}, std::byte{'x'}, std::byte{'t'}};
    BOOST_REQUIRE(memory->write(Gpa{0}, std::span{bytes}));
    BOOST_TEST(memory.text(Gpa{0}) == "text");
    BOOST_REQUIRE(memory->write(Gpa{100}, bytes));
    BOOST_TEST(memory.text(Gpa{100}) == "text");
    BOOST_REQUIRE(memory->write(Gpa{200}, std::uint16_t{0x6968}));
    BOOST_TEST(memory.text(Gpa{200}) == "hi");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
