#include "vmm/devices/serial16550.h"

#include <algorithm>
#include <utility>

namespace splitvisor::vmm {
namespace {

// Registers, by offset; with the divisor latch open the first two are the divisor.
enum Register : std::uint64_t {
    kData = 0,
    kInterruptEnable = 1,
    kInterruptIdentity = 2,  // read; FIFO control on write
    kLineControl = 3,
    kModemControl = 4,
    kLineStatus = 5,
    kModemStatus = 6,
    kScratch = 7,
};

constexpr std::uint8_t kEnableReceived = 1u << 0;
constexpr std::uint8_t kEnableTransmitterEmpty = 1u << 1;
constexpr std::uint8_t kEnableLineStatus = 1u << 2;
constexpr std::uint8_t kEnableMask = 0x0f;

constexpr std::uint8_t kIdentityNone = 0x01;
constexpr std::uint8_t kIdentityTransmitterEmpty = 0x02;
constexpr std::uint8_t kIdentityReceived = 0x04;
constexpr std::uint8_t kIdentityLineStatus = 0x06;
constexpr std::uint8_t kIdentityTimeout = 0x0c;
constexpr std::uint8_t kIdentityFifosOn = 0xc0;

constexpr std::uint8_t kFifoEnable = 1u << 0;
constexpr std::uint8_t kFifoClearReceiver = 1u << 1;
constexpr std::array<std::size_t, 4> kTriggerLevels{1, 4, 8, 14};

constexpr std::uint8_t kDivisorLatch = 1u << 7;

constexpr std::uint8_t kLoopback = 1u << 4;

constexpr std::uint8_t kDataReady = 1u << 0;
constexpr std::uint8_t kOverrun = 1u << 1;
constexpr std::uint8_t kTransmitterIdle = 0x60;  // holding register and shift register empty

constexpr std::uint8_t kCarrierReadyClear = 0xb0;  // DCD, DSR and CTS: the other side is there

constexpr std::size_t kFifoBytes = 16;

}  // namespace

Serial16550::Serial16550(InterruptLine& line, ConsoleOutput& output, std::function<void()> on_room)
    : line_{line}, output_{output}, on_room_{std::move(on_room)}
{
}

void Serial16550::read(std::uint64_t offset, std::span<std::byte> into)
{
    // The port is eight bits wide; the other lanes of a wider access float.
    std::ranges::fill(into, std::byte{0xff});
    bool room = false;
    {
        const std::lock_guard lock{mutex_};
        into[0] = std::byte{read_register(offset)};
        update_interrupt();
        room = take_room();
    }
    if (room) on_room_();
}

void Serial16550::write(std::uint64_t offset, std::span<const std::byte> from)
{
    bool room = false;
    {
        const std::lock_guard lock{mutex_};
        write_register(offset, static_cast<std::uint8_t>(from[0]));
        update_interrupt();
        room = take_room();
    }
    if (room) on_room_();
}

bool Serial16550::take_room()
{
    return !in_loop_back() && receiver_.empty() && std::exchange(receiver_was_full_, false);
}

bool Serial16550::in_loop_back() const { return (modem_control_ & kLoopback) != 0; }

std::size_t Serial16550::receive(std::span<const std::byte> bytes)
{
    const std::lock_guard lock{mutex_};
    // In loop-back the line is cut off from the receiver; what comes waits for its end.
    const auto capacity = in_loop_back() ? 0 : receiver_capacity();
    const auto room = capacity - std::min(capacity, receiver_.size());
    const auto count = std::min(room, bytes.size());
    for (const auto byte : bytes.first(count)) receiver_.push_back(static_cast<std::uint8_t>(byte));
    if (count < bytes.size()) receiver_was_full_ = true;
    if (count > 0) asserted_ = false;
    update_interrupt();
    return count;
}

std::size_t Serial16550::receiver_capacity() const { return (fifo_control_ & kFifoEnable) != 0 ? kFifoBytes : 1; }

std::uint8_t Serial16550::read_register(std::uint64_t offset)
{
    const bool latch_open = (line_control_ & kDivisorLatch) != 0;
    switch (offset) {
    case kData: return latch_open ? static_cast<std::uint8_t>(divisor_ & 0xff) : read_receiver();
    case kInterruptEnable: return latch_open ? static_cast<std::uint8_t>(divisor_ >> 8) : interrupt_enable_;
    case kInterruptIdentity: return read_interrupt_identity();
    case kLineControl: return line_control_;
    case kModemControl: return modem_control_;
    case kLineStatus: return line_status();
    case kModemStatus: return modem_status();
    case kScratch: return scratch_;
    default: return 0xff;
    }
}

void Serial16550::write_register(std::uint64_t offset, std::uint8_t value)
{
    const bool latch_open = (line_control_ & kDivisorLatch) != 0;
    switch (offset) {
    case kData:
        if (latch_open) {
            divisor_ = static_cast<std::uint16_t>((divisor_ & 0xff00) | value);
        } else {
            transmit(value);
        }
        break;
    case kInterruptEnable:
        if (latch_open) {
            divisor_ = static_cast<std::uint16_t>((divisor_ & 0x00ff) | (value << 8));
        } else {
            write_interrupt_enable(value);
        }
        break;
    case kInterruptIdentity: write_fifo_control(value); break;
    case kLineControl: line_control_ = value; break;
    case kModemControl: modem_control_ = value & 0x1f; break;
    case kScratch: scratch_ = value; break;
    default: break;  // the status registers are read-only
    }
}

std::uint8_t Serial16550::read_receiver()
{
    if (receiver_.empty()) return 0;
    const auto value = receiver_.front();
    receiver_.pop_front();
    return value;
}

void Serial16550::transmit(std::uint8_t value)
{
    if (in_loop_back()) {
        if (receiver_.size() < receiver_capacity()) {
            receiver_.push_back(value);
        } else {
            overrun_ = true;
        }
    } else {
        const auto byte = std::byte{value};
        output_.write(std::span{&byte, 1});
    }
    transmitter_empty_pending_ = true;
    asserted_ = false;
}

void Serial16550::write_interrupt_enable(std::uint8_t value)
{
    const bool newly_enabled = (value & ~interrupt_enable_ & kEnableTransmitterEmpty) != 0;
    interrupt_enable_ = value & kEnableMask;
    if (newly_enabled) transmitter_empty_pending_ = true;
}

void Serial16550::write_fifo_control(std::uint8_t value)
{
    const bool switched = ((value ^ fifo_control_) & kFifoEnable) != 0;
    if (switched || (value & kFifoClearReceiver) != 0) receiver_.clear();
    fifo_control_ = value & (kFifoEnable | 0xc0);
}

std::uint8_t Serial16550::interrupt_identity() const
{
    if (overrun_ && (interrupt_enable_ & kEnableLineStatus) != 0) return kIdentityLineStatus;
    if (!receiver_.empty() && (interrupt_enable_ & kEnableReceived) != 0) {
        const bool fifos_on = (fifo_control_ & kFifoEnable) != 0;
        // Fewer bytes than the trigger level: the time-out that a real line would run into has passed already.
        const bool below = fifos_on && receiver_.size() < kTriggerLevels[fifo_control_ >> 6];
        return below ? kIdentityTimeout : kIdentityReceived;
    }
    if (transmitter_empty_pending_ && (interrupt_enable_ & kEnableTransmitterEmpty) != 0) {
        return kIdentityTransmitterEmpty;
    }
    return kIdentityNone;
}

std::uint8_t Serial16550::read_interrupt_identity()
{
    const auto identity = interrupt_identity();
    if (identity == kIdentityTransmitterEmpty) transmitter_empty_pending_ = false;
    const bool fifos_on = (fifo_control_ & kFifoEnable) != 0;
    return static_cast<std::uint8_t>(identity | (fifos_on ? kIdentityFifosOn : 0));
}

std::uint8_t Serial16550::line_status()
{
    const auto status = static_cast<std::uint8_t>(kTransmitterIdle | (receiver_.empty() ? 0 : kDataReady) |
                                                  (overrun_ ? kOverrun : 0));
    overrun_ = false;
    return status;
}

std::uint8_t Serial16550::modem_status() const
{
    if (!in_loop_back()) return kCarrierReadyClear;
    // In loop-back DTR, RTS, OUT1 and OUT2 come in as DSR, CTS, RI and DCD.
    const auto bit = [&](unsigned from, unsigned to) { return ((modem_control_ >> from) & 1u) << to; };
    return static_cast<std::uint8_t>(bit(0, 5) | bit(1, 4) | bit(2, 6) | bit(3, 7));
}

void Serial16550::update_interrupt()
{
    // Each new cause clears asserted_ and so makes an edge of its own, even while another keeps the line up: an edge the
    // interrupt controller swallowed while masked would otherwise be the last one.
    const bool pending = interrupt_identity() != kIdentityNone;
    if (pending && !asserted_) line_.raise();
    asserted_ = pending;
}

}  // namespace splitvisor::vmm
