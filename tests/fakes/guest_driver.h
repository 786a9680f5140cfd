#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/mapping.h"
#include "vmm/device.h"
#include "vmm/guest_memory.h"
#include "vmm/virtio/mmio_transport.h"
#include "vmm/virtio/split_queue.h"

/// The driver's side of virtio, as a guest would have it, for tests: RAM, rings, registers, interrupts. It can also
/// write every kind of nonsense into a ring.
namespace splitvisor::fakes {

inline constexpr std::uint16_t kDescNext = 1;
inline constexpr std::uint16_t kDescWrite = 2;
inline constexpr std::uint16_t kDescIndirect = 4;

/// Waits up to ten seconds for something another thread does.
template <typename Predicate>
[[nodiscard]] bool eventually(Predicate predicate)
{
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{10};
    while (!predicate()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(std::chrono::microseconds{200});
    }
    return true;
}

/// Guest RAM on the heap, where the address sanitizer sees the first byte before and behind it.
class GuestRam {
  public:
    explicit GuestRam(std::uint64_t bytes)
        : bytes_{static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes)), &std::free},
          memory_{{bytes_.get(), bytes}, ByteCount{bytes}}
    {
        std::memset(bytes_.get(), 0, bytes);
    }
    [[nodiscard]] const vmm::GuestMemory& memory() const { return memory_; }
    [[nodiscard]] std::span<std::byte> all() const { return {bytes_.get(), memory_.size().value()}; }

    void put(Gpa where, std::span<const std::byte> from) const { SPLITVISOR_CHECK(memory_.write(where, from)); }
    template <typename T>
    void put(Gpa where, const T& value) const
    {
        SPLITVISOR_CHECK(memory_.write<T>(where, value));
    }
    void fill(Gpa where, std::size_t length, std::byte value) const
    {
        put(where, std::span<const std::byte>{std::vector<std::byte>(length, value)});
    }
    template <typename T>
    [[nodiscard]] T get(Gpa where) const
    {
        return *memory_.read<T>(where);
    }
    [[nodiscard]] std::vector<std::byte> get(Gpa where, std::size_t length) const
    {
        std::vector<std::byte> bytes(length);
        SPLITVISOR_CHECK(memory_.read(where, bytes));
        return bytes;
    }

  private:
    std::unique_ptr<std::byte, decltype(&std::free)> bytes_;
    vmm::GuestMemory memory_;
};

struct Buffer {
    Gpa address;
    std::uint32_t length = 0;
    bool writable = false;
};

struct Used {
    std::uint32_t head = 0;
    std::uint32_t length = 0;
};

/// One split virtqueue, used by one thread.
class DriverRing {
  public:
    /// Puts the three areas at `base`, which has room for bytes_needed(size).
    DriverRing(const GuestRam& ram, Gpa base, std::uint16_t size, bool event_index = false)
        : ram_{&ram}, size_{size}, event_index_{event_index}
    {
        layout_ = {.size = size, .descriptors = base, .available = base + 16u * size, .used = base + 24u * size};
        for (std::uint16_t i = 0; i < size; ++i) free_.push_back(static_cast<std::uint16_t>(size - 1 - i));
        chains_.resize(size);
    }
    static constexpr std::uint64_t bytes_needed(std::uint16_t size) { return 24u * size + 16 + 8u * size; }

    [[nodiscard]] const vmm::virtio::RingLayout& layout() const { return layout_; }
    [[nodiscard]] std::uint16_t size() const { return size_; }

    // Well-behaved use ------------------------------------------------------------------------------------------------

    /// Makes a chain available; nothing where descriptors are short.
    std::optional<std::uint16_t> add(std::span<const Buffer> buffers)
    {
        if (free_.size() < buffers.size() || buffers.empty()) return std::nullopt;
        std::vector<std::uint16_t> indices;
        for (std::size_t i = 0; i < buffers.size(); ++i) {
            indices.push_back(free_.back());
            free_.pop_back();
        }
        for (std::size_t i = 0; i < buffers.size(); ++i) {
            const bool last = i + 1 == buffers.size();
            descriptor(indices[i], buffers[i].address, buffers[i].length,
                       static_cast<std::uint16_t>((buffers[i].writable ? kDescWrite : 0) | (last ? 0 : kDescNext)),
                       last ? std::uint16_t{0} : indices[i + 1]);
        }
        const auto head = indices.front();
        chains_[head] = std::move(indices);
        offer(head);
        return head;
    }
    std::optional<std::uint16_t> add(std::initializer_list<Buffer> buffers)
    {
        return add(std::span{buffers.begin(), buffers.size()});
    }

    /// Makes a chain available that lies in an indirect table at `table`.
    std::optional<std::uint16_t> add_indirect(Gpa table, std::span<const Buffer> buffers)
    {
        if (free_.empty()) return std::nullopt;
        for (std::size_t i = 0; i < buffers.size(); ++i) {
            const bool last = i + 1 == buffers.size();
            raw_descriptor(table + 16 * i, buffers[i].address, buffers[i].length,
                           static_cast<std::uint16_t>((buffers[i].writable ? kDescWrite : 0) | (last ? 0 : kDescNext)),
                           static_cast<std::uint16_t>(i + 1));
        }
        const auto head = free_.back();
        free_.pop_back();
        descriptor(head, table, static_cast<std::uint32_t>(16 * buffers.size()), kDescIndirect, 0);
        chains_[head] = {head};
        offer(head);
        return head;
    }

    /// Shows the device what was added; true where it wants its doorbell rung.
    [[nodiscard]] bool publish()
    {
        const auto before = shown_;
        shown_ = available_;
        available_index(available_);
        if (!event_index_) return (load16(layout_.used) & 1) == 0;
        const auto event = load16(layout_.used + 4 + 8u * size_);
        return static_cast<std::uint16_t>(shown_ - event - 1) < static_cast<std::uint16_t>(shown_ - before);
    }

    [[nodiscard]] std::optional<Used> take_used()
    {
        if (used_index() == seen_) return std::nullopt;
        const auto slot = layout_.used + 4 + 8u * (seen_ & (size_ - 1u));
        const Used used{load32(slot), load32(slot + 4)};
        ++seen_;
        if (used.head < size_) {
            for (const auto index : chains_[used.head]) free_.push_back(index);
            chains_[used.head].clear();
        }
        return used;
    }
    [[nodiscard]] std::uint16_t used_index() const { return load16(layout_.used + 2); }

    /// Asks for an interrupt at the next used element; true where there is one already.
    [[nodiscard]] bool want_interrupt()
    {
        if (event_index_) used_event(seen_);
        return used_index() != seen_;
    }

    // Nonsense --------------------------------------------------------------------------------------------------------

    void descriptor(std::uint16_t index, Gpa address, std::uint32_t length, std::uint16_t flags, std::uint16_t next)
    {
        raw_descriptor(layout_.descriptors + 16u * index, address, length, flags, next);
    }
    void raw_descriptor(Gpa where, Gpa address, std::uint32_t length, std::uint16_t flags, std::uint16_t next) const
    {
        store_at<std::uint64_t>(where, address.value());
        store_at<std::uint64_t>(where + 8, length | std::uint64_t{flags} << 32 | std::uint64_t{next} << 48);
    }
    /// Puts a head into the next slot without showing it.
    void offer(std::uint16_t head)
    {
        store_at<std::uint16_t>(layout_.available + 4 + 2u * (available_ & (size_ - 1u)), head);
        ++available_;
    }
    void available_index(std::uint16_t index) const { store_at(layout_.available + 2, index); }
    void available_flags(std::uint16_t flags) const { store_at(layout_.available, flags); }
    void used_event(std::uint16_t value) const { store_at(layout_.available + 4 + 2u * size_, value); }
    [[nodiscard]] std::uint16_t available_event() const { return load16(layout_.used + 4 + 8u * size_); }

  private:
    template <typename T>
    [[nodiscard]] T& at(Gpa where) const
    {
        return *reinterpret_cast<T*>(ram_->memory().host_range(where, sizeof(T))->data());
    }
    template <typename T>
    void store_at(Gpa where, T value) const
    {
        std::atomic_ref<T>{at<T>(where)}.store(value);
    }
    [[nodiscard]] std::uint16_t load16(Gpa where) const { return std::atomic_ref<std::uint16_t>{at<std::uint16_t>(where)}.load(); }
    [[nodiscard]] std::uint32_t load32(Gpa where) const { return std::atomic_ref<std::uint32_t>{at<std::uint32_t>(where)}.load(); }

    const GuestRam* ram_;
    std::uint16_t size_;
    bool event_index_;
    vmm::virtio::RingLayout layout_;
    std::vector<std::uint16_t> free_;
    std::vector<std::vector<std::uint16_t>> chains_;  ///< descriptors by head
    std::uint16_t available_ = 0;
    std::uint16_t shown_ = 0;
    std::uint16_t seen_ = 0;
};

/// An interrupt line that counts, and that a driver thread can sleep on.
class FakeLine final : public vmm::InterruptLine {
  public:
    void raise() override
    {
        {
            const std::scoped_lock lock{mutex_};
            ++raised_;
        }
        changed_.notify_all();
    }
    [[nodiscard]] std::uint64_t raised() const
    {
        const std::scoped_lock lock{mutex_};
        return raised_;
    }
    /// Waits until more than `seen` were raised; false after ten seconds.
    [[nodiscard]] bool wait_beyond(std::uint64_t seen) const
    {
        std::unique_lock lock{mutex_};
        return changed_.wait_for(lock, std::chrono::seconds{10}, [&] { return raised_ > seen; });
    }

  private:
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::uint64_t raised_ = 0;
};

/// What KVM does with ioeventfds.
class FakeDoorbells final : public vmm::DoorbellRegistry {
  public:
    Status add(Gpa address, std::uint32_t value, const EventFd& event) override
    {
        if (refuse) return Error{ErrorCode::kNoRoom, "no more doorbells"};
        bells_[{address.value(), value}] = event.fd();
        return {};
    }
    void remove(Gpa address, std::uint32_t value, const EventFd&) override { bells_.erase({address.value(), value}); }

    /// True where a bell hangs there; then no exit to the VMM happens.
    [[nodiscard]] bool ring(Gpa address, std::uint32_t value) const
    {
        const auto bell = bells_.find({address.value(), value});
        if (bell == bells_.end()) return false;
        const std::uint64_t one = 1;
        return ::write(bell->second, &one, sizeof one) == sizeof one;
    }
    [[nodiscard]] std::size_t count() const { return bells_.size(); }

    bool refuse = false;

  private:
    std::map<std::pair<std::uint64_t, std::uint32_t>, int> bells_;
};

/// A machine with one virtio device, seen from its driver.
class DeviceUnderTest {
  public:
    static constexpr Gpa kWindow{0xd0000000};

    DeviceUnderTest(std::unique_ptr<vmm::virtio::VirtioDevice> device, const GuestRam& ram) : ram_{&ram}
    {
        auto transport = vmm::virtio::MmioTransport::create(std::move(device), ram.memory(), line, doorbells, kWindow);
        SPLITVISOR_CHECK(transport.ok());
        transport_ = std::move(*transport);
    }

    [[nodiscard]] std::uint32_t read(std::uint64_t offset)
    {
        std::uint32_t value = 0;
        transport_->read(offset, std::as_writable_bytes(std::span{&value, 1}));
        return value;
    }
    void write(std::uint64_t offset, std::uint32_t value) { transport_->write(offset, bytes_of(value)); }
    [[nodiscard]] std::uint32_t status() { return read(0x70); }
    [[nodiscard]] bool needs_reset() { return (status() & 64) != 0; }

    [[nodiscard]] std::uint64_t offered()
    {
        write(0x14, 0);
        const std::uint64_t low = read(0x10);
        write(0x14, 1);
        return low | std::uint64_t{read(0x10)} << 32;
    }
    /// Up to FEATURES_OK; false where the device did not accept them.
    bool negotiate(std::uint64_t features)
    {
        write(0x70, 0);
        write(0x70, 1);
        write(0x70, 3);
        write(0x24, 0);
        write(0x20, static_cast<std::uint32_t>(features));
        write(0x24, 1);
        write(0x20, static_cast<std::uint32_t>(features >> 32));
        write(0x70, 11);
        return (status() & 8) != 0;
    }
    void set_queue(std::uint32_t index, const vmm::virtio::RingLayout& layout, std::uint32_t ready = 1)
    {
        write(0x30, index);
        write(0x38, layout.size);
        write_address(0x80, layout.descriptors);
        write_address(0x90, layout.available);
        write_address(0xa0, layout.used);
        write(0x44, ready);
    }
    void driver_ok() { write(0x70, 15); }

    /// A guest's write to the notify register.
    void notify(std::uint32_t queue)
    {
        if (!doorbells.ring(kWindow + 0x50, queue)) write(0x50, queue);
    }
    void publish(std::uint32_t queue, DriverRing& ring)
    {
        if (ring.publish()) notify(queue);
    }
    /// Publishes and waits for one used element.
    [[nodiscard]] std::optional<Used> complete(std::uint32_t queue, DriverRing& ring)
    {
        publish(queue, ring);
        std::optional<Used> used;
        (void)eventually([&] { return (used = ring.take_used()).has_value(); });
        return used;
    }

    [[nodiscard]] vmm::virtio::MmioTransport& transport() { return *transport_; }
    void destroy() { transport_.reset(); }
    [[nodiscard]] const GuestRam& ram() const { return *ram_; }

    FakeLine line;
    FakeDoorbells doorbells;

  private:
    void write_address(std::uint64_t offset, Gpa address)
    {
        write(offset, static_cast<std::uint32_t>(address.value()));
        write(offset + 4, static_cast<std::uint32_t>(address.value() >> 32));
    }

    const GuestRam* ram_;
    std::unique_ptr<vmm::virtio::MmioTransport> transport_;
};

}  // namespace splitvisor::fakes
