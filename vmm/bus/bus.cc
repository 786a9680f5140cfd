#include "vmm/bus/bus.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>

#include "base/checked.h"

namespace splitvisor::vmm {
namespace {

std::string hex(std::uint64_t value)
{
    char text[20];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

void fill_with_ones(std::span<std::byte> into) { std::ranges::fill(into, std::byte{0xff}); }

}  // namespace

void Bus::claim(Windows& windows, const Window& window)
{
    const auto after = std::ranges::upper_bound(windows, window.start, {}, &Window::start);
    if (after != windows.begin()) {
        const auto& before = *std::prev(after);
        SPLITVISOR_CHECK(before.start + before.bytes <= window.start);
    }
    if (after != windows.end()) SPLITVISOR_CHECK(window.start + window.bytes <= after->start);
    windows.insert(after, window);
}

void Bus::claim_ports(Port first, std::uint16_t count, IoDevice& device)
{
    claim(ports_, {first.value(), count, &device});
}

void Bus::claim_memory(Gpa start, ByteCount size, IoDevice& device)
{
    claim(windows_, {start.value(), size.value(), &device});
}

const Bus::Window* Bus::find(const Windows& windows, std::uint64_t address, std::size_t bytes)
{
    if (!std::has_single_bit(bytes) || bytes > 8) return nullptr;
    const auto after = std::ranges::upper_bound(windows, address, {}, &Window::start);
    if (after == windows.begin()) return nullptr;
    const auto& window = *std::prev(after);
    const auto offset = address - window.start;
    return offset < window.bytes && bytes <= window.bytes - offset ? &window : nullptr;
}

vcpu::Next Bus::next() const { return halted_.load() ? vcpu::Next::kStop : vcpu::Next::kContinue; }

vcpu::Next Bus::port_read(std::uint16_t port, std::span<std::byte> into)
{
    if (const auto* window = find(ports_, port, into.size())) {
        window->device->read(port - window->start, into);
    } else {
        fill_with_ones(into);
        note_unclaimed_port(port);
    }
    return next();
}

vcpu::Next Bus::port_write(std::uint16_t port, std::span<const std::byte> from)
{
    if (const auto* window = find(ports_, port, from.size())) {
        window->device->write(port - window->start, from);
    } else {
        note_unclaimed_port(port);
    }
    return next();
}

vcpu::Next Bus::mmio_read(Gpa address, std::span<std::byte> into)
{
    if (const auto* window = find(windows_, address.value(), into.size())) {
        window->device->read(address.value() - window->start, into);
        return next();
    }
    fill_with_ones(into);
    note_unclaimed_memory(address);
    return next();
}

vcpu::Next Bus::mmio_write(Gpa address, std::span<const std::byte> from)
{
    if (const auto* window = find(windows_, address.value(), from.size())) {
        window->device->write(address.value() - window->start, from);
        return next();
    }
    note_unclaimed_memory(address);
    return next();
}

void Bus::note_unclaimed_port(std::uint16_t port)
{
    unclaimed_ports_.fetch_add(1, std::memory_order_relaxed);
    const std::lock_guard lock{log_mutex_};
    if (logged_ports_[port]) return;
    logged_ports_[port] = true;
    if (log_limit_.allow()) log(LogLevel::kDebug, "guest used a port without a device", field("port", hex(port)));
}

void Bus::note_unclaimed_memory(Gpa address)
{
    if (memory_.host_range(address, 1)) {
        // Going on with made-up bytes would corrupt the guest silently.
        halt();
        on_ram_exit_(address);
        return;
    }
    unclaimed_memory_.fetch_add(1, std::memory_order_relaxed);
    const std::lock_guard lock{log_mutex_};
    if (log_limit_.allow()) {
        log(LogLevel::kDebug, "guest used an address without RAM or device", field("gpa", hex(address.value())));
    }
}

BusCounters Bus::counters() const
{
    return {unclaimed_ports_.load(std::memory_order_relaxed), unclaimed_memory_.load(std::memory_order_relaxed)};
}

}  // namespace splitvisor::vmm
