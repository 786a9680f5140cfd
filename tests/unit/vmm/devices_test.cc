#include <boost/test/unit_test.hpp>
#include <random>

#include "fixtures.h"
#include "vmm/devices/pm_timer.h"
#include "vmm/devices/power.h"
#include "vmm/devices/serial16550.h"

namespace splitvisor::vmm::test {
namespace {

class CountingLine final : public InterruptLine {
  public:
    void raise() override { ++raised; }
    int raised = 0;
};

class TextOutput final : public ConsoleOutput {
  public:
    void write(std::span<const std::byte> bytes) override
    {
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    std::string text;
};

enum : std::uint64_t { kData, kIer, kIir, kLcr, kMcr, kLsr, kMsr, kScratch };

struct SerialFixture {
    std::uint8_t in(std::uint64_t offset)
    {
        std::byte value{};
        serial.read(offset, std::span{&value, 1});
        return static_cast<std::uint8_t>(value);
    }
    void out(std::uint64_t offset, unsigned value)
    {
        const auto byte = static_cast<std::byte>(value);
        serial.write(offset, std::span{&byte, 1});
    }
    std::size_t receive(std::string_view text) { return serial.receive(std::as_bytes(std::span{text})); }
    /// What the guest finds in its receiver.
    std::string drain()
    {
        std::string text;
        for (int bound = 0; bound < 100 && (in(kLsr)&1) != 0; ++bound) text += static_cast<char>(in(kData));
        return text;
    }
    /// Interrupts since the last call.
    int edges() { return std::exchange(line.raised, 0); }

    CountingLine line;
    TextOutput output;
    int room = 0;
    Serial16550 serial{line, output, [this] { ++room; }};
};

struct PowerFixture {
    OnPowerRequest note = [this](PowerRequest request) { requests.push_back(request); };
    std::vector<PowerRequest> requests;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(serial16550, SerialFixture)

BOOST_AUTO_TEST_CASE(is_found_by_the_probe_of_a_driver)
{
    out(kIer, 0);
    BOOST_TEST(in(kIer) == 0u);
    out(kIer, 0xff);
    BOOST_TEST(in(kIer) == 0x0fu);
    out(kIer, 0);
    out(kScratch, 0xa5);
    BOOST_TEST(in(kScratch) == 0xa5u);
    BOOST_TEST((in(kIir)&0xc0) == 0u);
    out(kIir, 1);
    BOOST_TEST((in(kIir)&0xc0) == 0xc0u);  // 16550A: its FIFOs work
    out(kMcr, 0x1a);
    BOOST_TEST((in(kMsr)&0xf0) == 0x90u);
    out(kMcr, 0);
    BOOST_TEST((in(kMsr)&0xf0) == 0xb0u);
}

BOOST_AUTO_TEST_CASE(the_divisor_hides_data_and_interrupt_enable_while_its_latch_is_open)
{
    out(kIer, 0x05);
    out(kLcr, 0x83);
    out(kData, 0x0c);
    out(kIer, 0x34);
    BOOST_TEST(in(kData) == 0x0cu);
    BOOST_TEST(in(kIer) == 0x34u);
    BOOST_TEST(in(kLcr) == 0x83u);
    out(kLcr, 0x03);
    BOOST_TEST(in(kIer) == 0x05u);
    BOOST_TEST(output.text == "");
    BOOST_TEST(edges() == 0);
}

BOOST_AUTO_TEST_CASE(a_flood_of_output_arrives_whole_and_the_transmitter_is_always_ready)
{
    std::string sent;
    for (int i = 0; i < 100'000; ++i) {
        sent += static_cast<char>(i * 31);
        BOOST_REQUIRE((in(kLsr)&0x60) == 0x60u);
        out(kData, static_cast<unsigned char>(sent.back()));
    }
    BOOST_TEST((output.text == sent));
    BOOST_TEST(edges() == 0);
}

BOOST_AUTO_TEST_CASE(an_empty_transmitter_interrupts_once_for_each_byte_and_when_enabled)
{
    out(kIer, 2);
    BOOST_TEST(edges() == 1);
    BOOST_TEST(in(kIir) == 0x02u);
    BOOST_TEST(in(kIir) == 0x01u);  // reading it took it away
    for (int i = 0; i < 3; ++i) {
        out(kData, 'x');
        BOOST_TEST(edges() == 1);
    }
    BOOST_TEST((in(kIir)&0x0f) == 0x02u);
    out(kIer, 0);
    BOOST_TEST(edges() == 0);
    out(kIer, 2);
    BOOST_TEST(edges() == 1);
}

BOOST_AUTO_TEST_CASE(without_fifo_one_byte_is_taken_at_a_time)
{
    out(kIer, 1);
    BOOST_TEST(receive("abc") == 1u);
    BOOST_TEST(edges() == 1);
    BOOST_TEST(in(kIir) == 0x04u);
    BOOST_TEST(receive("bc") == 0u);
    BOOST_TEST(room == 0);
    BOOST_TEST(in(kData) == 'a');
    BOOST_TEST(room == 1);
    BOOST_TEST(in(kIir) == 0x01u);
    BOOST_TEST(in(kData) == 0u);
    BOOST_TEST(room == 1);
}

BOOST_AUTO_TEST_CASE(the_fifo_takes_16_bytes_and_asks_for_more_when_it_is_empty)
{
    out(kIir, 0xc1);
    out(kIer, 1);
    BOOST_TEST(receive("0123456789abcdefgh") == 16u);
    BOOST_TEST(edges() == 1);
    BOOST_TEST(in(kIir) == 0xc4u);  // at least 14
    for (int i = 0; i < 3; ++i) (void)in(kData);
    BOOST_TEST(in(kIir) == 0xccu);  // fewer: the time-out
    BOOST_TEST(room == 0);
    BOOST_TEST(drain() == "3456789abcdef");
    BOOST_TEST(room == 1);
    BOOST_TEST(receive("gh") == 2u);
    BOOST_TEST(edges() == 1);
    BOOST_TEST(drain() == "gh");
    BOOST_TEST(room == 1);
}

BOOST_AUTO_TEST_CASE(input_that_waited_interrupts_when_it_is_enabled_and_new_input_again)
{
    out(kIir, 1);
    BOOST_TEST(receive("a") == 1u);
    BOOST_TEST(edges() == 0);
    out(kIer, 1);
    BOOST_TEST(edges() == 1);
    BOOST_TEST(receive("b") == 1u);
    BOOST_TEST(edges() == 1);  // the first may have been swallowed by a masked interrupt controller
    BOOST_TEST(drain() == "ab");
    BOOST_TEST(edges() == 0);
}

BOOST_AUTO_TEST_CASE(clearing_or_switching_the_fifo_empties_it)
{
    for (const unsigned control : {0x03u, 0x00u, 0x01u}) {
        BOOST_TEST(receive(std::string(20, 'x')) > 0u);
        const int before = room;
        out(kIir, control);
        BOOST_TEST((in(kLsr)&1) == 0u);
        BOOST_TEST(room == before + 1);
    }
}

BOOST_AUTO_TEST_CASE(loop_back_returns_what_is_sent_and_tells_an_overrun)
{
    out(kIir, 1);
    out(kMcr, 0x10);
    out(kIer, 4);
    for (unsigned i = 0; i < 17; ++i) out(kData, 'a' + i);
    BOOST_TEST(output.text == "");
    BOOST_TEST((in(kIir)&0x0f) == 0x06u);
    BOOST_TEST((in(kLsr)&0x02) == 0x02u);
    BOOST_TEST((in(kLsr)&0x02) == 0u);  // reading it took it away
    BOOST_TEST(drain() == "abcdefghijklmnop");
}

BOOST_AUTO_TEST_CASE(loop_back_keeps_the_line_out_until_it_is_over)
{
    out(kIir, 1);
    out(kMcr, 0x10);
    BOOST_TEST(receive("typed ahead") == 0u);
    out(kData, 'l');
    BOOST_TEST(drain() == "l");
    BOOST_TEST(room == 0);
    out(kMcr, 0x00);
    BOOST_TEST(room == 1);
    BOOST_TEST(receive("typed ahead") == 11u);
    BOOST_TEST(drain() == "typed ahead");
}

BOOST_AUTO_TEST_CASE(modem_lines_are_crossed_in_loop_back)
{
    for (unsigned lines = 0; lines < 16; ++lines) {
        out(kMcr, 0x10 | lines);
        const unsigned expected =
            ((lines & 1) << 5) | ((lines & 2) << 3) | ((lines & 4) << 4) | ((lines & 8) << 4);
        BOOST_TEST(in(kMsr) == expected);
    }
}

BOOST_AUTO_TEST_CASE(a_wide_access_uses_the_lowest_lane_only)
{
    std::array<std::byte, 4> wide{std::byte{'w'}, std::byte{1}, std::byte{2}, std::byte{3}};
    serial.write(kData, wide);
    BOOST_TEST(output.text == "w");
    BOOST_TEST(in(kIer) == 0u);
    serial.read(kLsr, wide);
    BOOST_TEST((wide == std::array{std::byte{0x60}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}}));
}

BOOST_AUTO_TEST_CASE(a_driver_that_reads_on_interrupts_only_never_misses_input)
{
    std::mt19937_64 random{3};
    out(kIir, 1);
    out(kIer, 3);
    std::string sent;
    std::string waiting;
    std::string got;
    bool interrupted = false;
    for (int round = 0; round < 20'000; ++round) {
        switch (random() % 4) {
        case 0:
            waiting += static_cast<char>('a' + random() % 26);
            sent += waiting.back();
            break;
        case 1: waiting.erase(0, receive(waiting)); break;
        case 2: out(kData, 'o'); break;
        default:
            interrupted = interrupted || edges() > 0;
            if (!interrupted) break;
            for (auto iir = in(kIir); (iir & 1) == 0; iir = in(kIir)) got += drain();
            interrupted = false;
        }
    }
    while (!waiting.empty()) {
        waiting.erase(0, receive(waiting));
        BOOST_REQUIRE((edges() > 0 || interrupted));
        got += drain();
    }
    BOOST_TEST((got == sent));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(pm_timer)

BOOST_AUTO_TEST_CASE(counts_at_its_frequency_and_wraps)
{
    constexpr std::uint64_t kSecond = 1'000'000'000;
    BOOST_TEST(PmTimer::ticks(0) == 0u);
    BOOST_TEST(PmTimer::ticks(kSecond) == 3'579'545u);
    BOOST_TEST(PmTimer::ticks(kSecond / 2) == 1'789'772u);
    BOOST_TEST(PmTimer::ticks(1200 * kSecond) == static_cast<std::uint32_t>(1200ull * 3'579'545));
    // A thousand years: nothing overflows before the counter is cut to 32 bits.
    const std::uint64_t years = std::uint64_t{31'536'000} * 500;
    BOOST_TEST(PmTimer::ticks(years * kSecond) == static_cast<std::uint32_t>(years * 3'579'545));
    std::uint32_t last = 0;
    for (std::uint64_t ns = 0; ns < 3 * kSecond; ns += 999'983) {
        BOOST_REQUIRE(PmTimer::ticks(ns) >= last);
        last = PmTimer::ticks(ns);
    }
}

BOOST_AUTO_TEST_CASE(is_read_in_any_width_and_not_written)
{
    PmTimer timer;
    const std::array<std::byte, 4> zero{};
    timer.write(0, zero);
    std::array<std::byte, 4> whole{};
    timer.read(0, whole);
    const auto first = load<std::uint32_t>(whole);
    timer.read(0, whole);
    BOOST_TEST(load<std::uint32_t>(whole) - first < 0x80000000u);
    for (std::uint64_t offset = 0; offset < 4; ++offset)
        timer.read(offset, std::span{whole}.first(4 - offset));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(power, PowerFixture)

BOOST_AUTO_TEST_CASE(the_power_port_knows_soft_off_and_reset_and_nothing_else)
{
    PowerPort port{note};
    for (unsigned value = 0; value < 256; ++value) {
        requests.clear();
        const auto byte = static_cast<std::byte>(value);
        port.write(0, std::span{&byte, 1});
        if (value == 0x34) {
            BOOST_TEST((requests == std::vector{PowerRequest::kOff}));
        } else if (value == 0x01) {
            BOOST_TEST((requests == std::vector{PowerRequest::kReset}));
        } else {
            BOOST_TEST(requests.empty(), value);
        }
    }
    std::byte status{0xff};
    port.read(0, std::span{&status, 1});
    BOOST_TEST((status == std::byte{0}));
}

BOOST_AUTO_TEST_CASE(the_keyboard_controller_resets_at_its_one_command)
{
    I8042Reset i8042{note};
    for (unsigned value = 0; value < 256; ++value) {
        const auto byte = static_cast<std::byte>(value);
        i8042.write(0, std::span{&byte, 1});
    }
    BOOST_TEST((requests == std::vector{PowerRequest::kReset}));
    std::byte status{0xff};
    i8042.read(0, std::span{&status, 1});
    BOOST_TEST((status == std::byte{0}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
