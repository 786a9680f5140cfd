#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>

#include "vmm/device.h"

namespace splitvisor::vmm {

/// Takes what a guest writes to its console. Called by vCPU threads with a device lock held: must not block.
class ConsoleOutput {
  public:
    virtual ~ConsoleOutput() = default;
    virtual void write(std::span<const std::byte> bytes) = 0;
};

/// A 16550A serial port (National Semiconductor PC16550D data sheet) whose transmitter is always done at once and whose
/// line is always connected. Any thread.
class Serial16550 final : public IoDevice {
  public:
    /// `on_room` is called, with no lock held, when the guest has emptied a full receiver, or ended a loop-back.
    Serial16550(InterruptLine& line, ConsoleOutput& output, std::function<void()> on_room);

    void read(std::uint64_t offset, std::span<std::byte> into) override;
    void write(std::uint64_t offset, std::span<const std::byte> from) override;

    /// Input for the guest: takes what its receiver has room for and returns how much that was.
    [[nodiscard]] std::size_t receive(std::span<const std::byte> bytes);

  private:
    [[nodiscard]] std::uint8_t read_register(std::uint64_t offset);
    void write_register(std::uint64_t offset, std::uint8_t value);
    [[nodiscard]] std::uint8_t read_receiver();
    [[nodiscard]] std::uint8_t interrupt_identity() const;
    [[nodiscard]] std::uint8_t read_interrupt_identity();
    [[nodiscard]] std::uint8_t line_status();
    [[nodiscard]] std::uint8_t modem_status() const;
    [[nodiscard]] std::size_t receiver_capacity() const;
    void transmit(std::uint8_t value);
    void write_interrupt_enable(std::uint8_t value);
    void write_fifo_control(std::uint8_t value);
    void update_interrupt();
    [[nodiscard]] bool take_room();
    [[nodiscard]] bool in_loop_back() const;

    InterruptLine& line_;
    ConsoleOutput& output_;
    std::function<void()> on_room_;

    std::mutex mutex_;  ///< guards what follows
    std::deque<std::uint8_t> receiver_;
    bool receiver_was_full_ = false;
    bool overrun_ = false;
    bool transmitter_empty_pending_ = false;
    bool asserted_ = false;  ///< the causes there are have had their edge
    std::uint8_t interrupt_enable_ = 0;
    std::uint8_t fifo_control_ = 0;
    std::uint8_t line_control_ = 0;
    std::uint8_t modem_control_ = 0;
    std::uint8_t scratch_ = 0;
    std::uint16_t divisor_ = 1;
};

}  // namespace splitvisor::vmm
