#include "vmm/virtio/mmio_transport.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"

namespace splitvisor::vmm::virtio {

namespace {

/// Register offsets, virtio 1.2, table 4.1.
enum Register : std::uint64_t {
    kMagicValue = 0x000,
    kVersion = 0x004,
    kDeviceId = 0x008,
    kVendorId = 0x00c,
    kDeviceFeatures = 0x010,
    kDeviceFeaturesSelect = 0x014,
    kDriverFeatures = 0x020,
    kDriverFeaturesSelect = 0x024,
    kQueueSelect = 0x030,
    kQueueSizeMax = 0x034,
    kQueueSize = 0x038,
    kQueueReady = 0x044,
    kQueueNotify = 0x050,
    kInterruptStatus = 0x060,
    kInterruptAck = 0x064,
    kStatus = 0x070,
    kQueueDescriptorsLow = 0x080,
    kQueueDescriptorsHigh = 0x084,
    kQueueDriverLow = 0x090,
    kQueueDriverHigh = 0x094,
    kQueueDeviceLow = 0x0a0,
    kQueueDeviceHigh = 0x0a4,
    kSharedMemorySelect = 0x0ac,
    kSharedMemoryLengthLow = 0x0b0,
    kSharedMemoryBaseHigh = 0x0bc,
    kConfigGeneration = 0x0fc,
    kConfig = 0x100,
};

constexpr std::uint32_t kMagic = 0x74726976;   // "virt"
constexpr std::uint32_t kVendor = 0x54494c50;  // "PLIT"
constexpr std::uint32_t kModernVersion = 2;
constexpr std::uint64_t kUsedBytes = 0x200;

/// Device status bits, section 2.1.
constexpr std::uint32_t kAcknowledge = 1;
constexpr std::uint32_t kDriver = 2;
constexpr std::uint32_t kDriverOk = 4;
constexpr std::uint32_t kFeaturesOk = 8;
constexpr std::uint32_t kNeedsReset = 64;
constexpr std::uint32_t kFailed = 128;

/// Interrupt status bits, section 4.2.2.
constexpr std::uint32_t kUsedBuffer = 1;
constexpr std::uint32_t kConfigChange = 2;

std::uint64_t with_low(std::uint64_t value, std::uint32_t low) { return (value & ~std::uint64_t{0xffffffff}) | low; }
std::uint64_t with_high(std::uint64_t value, std::uint32_t high)
{
    return (value & 0xffffffff) | (std::uint64_t{high} << 32);
}
std::uint32_t half(std::uint64_t value, std::uint32_t select)
{
    if (select > 1) return 0;
    return static_cast<std::uint32_t>(value >> (32 * select));
}

bool is_config_access(std::uint64_t offset, std::size_t size)
{
    return offset >= kConfig && offset < kUsedBytes && size <= kUsedBytes - offset;
}
bool is_register_access(std::uint64_t offset, std::size_t size)
{
    return offset < kConfig && offset % 4 == 0 && size == 4;
}

}  // namespace

Result<std::unique_ptr<MmioTransport>> MmioTransport::create(std::unique_ptr<VirtioDevice> device,
                                                             const GuestMemory& memory, InterruptLine& line,
                                                             DoorbellRegistry& registry, Gpa window)
{
    std::vector<Doorbell> doorbells;
    for (std::uint32_t queue = 0; queue < device->queue_sizes().size(); ++queue) {
        auto event = EventFd::create();
        if (!event) return event.error().in("virtio doorbell");
        const auto status = registry.add(window + kQueueNotify, queue, *event);
        if (!status) log_warning("virtio doorbell costs an exit", field("cause", status.error()));
        doorbells.push_back({std::move(*event), status.ok()});
    }
    return std::unique_ptr<MmioTransport>{
        new MmioTransport{std::move(device), memory, line, registry, window, std::move(doorbells)}};
}

MmioTransport::MmioTransport(std::unique_ptr<VirtioDevice> device, const GuestMemory& memory, InterruptLine& line,
                             DoorbellRegistry& registry, Gpa window, std::vector<Doorbell> doorbells)
    : device_{std::move(device)},
      memory_{memory},
      line_{line},
      registry_{registry},
      window_{window},
      doorbells_{std::move(doorbells)},
      queues_(doorbells_.size())
{
}

MmioTransport::~MmioTransport()
{
    reset();
    for (std::uint32_t queue = 0; queue < doorbells_.size(); ++queue) {
        if (doorbells_[queue].registered) registry_.remove(window_ + kQueueNotify, queue, doorbells_[queue].event);
    }
}

void MmioTransport::read(std::uint64_t offset, std::span<std::byte> into)
{
    if (is_config_access(offset, into.size())) {
        device_->read_config(static_cast<std::uint32_t>(offset - kConfig), into);
        return;
    }
    std::ranges::fill(into, std::byte{0});
    if (!is_register_access(offset, into.size())) return refuse();
    store(into, 0, read_register(offset));
}

void MmioTransport::write(std::uint64_t offset, std::span<const std::byte> from)
{
    if (is_config_access(offset, from.size())) return write_config(static_cast<std::uint32_t>(offset - kConfig), from);
    if (!is_register_access(offset, from.size())) return refuse();
    write_register(offset, load<std::uint32_t>(from));
}

std::uint32_t MmioTransport::read_register(std::uint64_t offset)
{
    switch (offset) {
    case kMagicValue: return kMagic;
    case kVersion: return kModernVersion;
    case kDeviceId: return static_cast<std::uint32_t>(device_->id());
    case kVendorId: return kVendor;
    case kInterruptStatus: return interrupt_status_.load();
    case kStatus: return status_.load();
    case kConfigGeneration: return device_->config_generation();
    default: break;
    }
    // A region that does not exist has a length, and here also a base, of all ones (section 4.2.2.1).
    if (offset >= kSharedMemoryLengthLow && offset <= kSharedMemoryBaseHigh) return 0xffffffff;
    return read_locked(offset);
}

std::uint32_t MmioTransport::read_locked(std::uint64_t offset)
{
    const std::scoped_lock lock{mutex_};
    const bool exists = queue_select_ < queues_.size();
    switch (offset) {
    case kDeviceFeatures: return half(device_->features(), device_features_select_);
    case kQueueSizeMax: return exists ? device_->queue_sizes()[queue_select_] : 0;
    case kQueueReady: return exists && queues_[queue_select_].ready ? 1 : 0;
    default: break;
    }
    refuse();
    return 0;
}

void MmioTransport::write_register(std::uint64_t offset, std::uint32_t value)
{
    if (offset == kQueueNotify) return notify(value);
    if (offset == kInterruptAck) {
        interrupt_status_.fetch_and(~value);
        return;
    }
    const std::scoped_lock lock{mutex_};
    switch (offset) {
    case kDeviceFeaturesSelect: device_features_select_ = value; break;
    case kDriverFeaturesSelect: driver_features_select_ = value; break;
    case kDriverFeatures: write_driver_features(value); break;
    case kQueueSelect: queue_select_ = value; break;
    case kSharedMemorySelect: break;
    case kStatus: write_status(value); break;
    default: write_queue_register(offset, value);
    }
}

void MmioTransport::write_config(std::uint32_t offset, std::span<const std::byte> from)
{
    const std::scoped_lock lock{mutex_};
    if (!has_status(kDriver) || (status_.load() & (kNeedsReset | kFailed)) != 0) return refuse();
    device_->write_config(offset, from);
}

bool MmioTransport::has_status(std::uint32_t bits) const { return (status_.load() & bits) == bits; }

void MmioTransport::write_driver_features(std::uint32_t value)
{
    if (!has_status(kDriver) || has_status(kFeaturesOk) || driver_features_select_ > 1) return refuse();
    driver_features_ = driver_features_select_ == 0 ? with_low(driver_features_, value)
                                                    : with_high(driver_features_, value);
}

/// Queues are configured after feature negotiation and before the device is live (section 3.1.1), each until it is ready.
void MmioTransport::write_queue_register(std::uint64_t offset, std::uint32_t value)
{
    if (queue_select_ >= queues_.size() || !has_status(kFeaturesOk)) return refuse();
    if ((status_.load() & (kDriverOk | kNeedsReset | kFailed)) != 0) return refuse();
    auto& queue = queues_[queue_select_];
    if (offset == kQueueReady) {
        queue.ready = (value & 1) != 0;
        return;
    }
    if (queue.ready) return refuse();
    switch (offset) {
    case kQueueSize: queue.size = value; break;
    case kQueueDescriptorsLow: queue.descriptors = with_low(queue.descriptors, value); break;
    case kQueueDescriptorsHigh: queue.descriptors = with_high(queue.descriptors, value); break;
    case kQueueDriverLow: queue.available = with_low(queue.available, value); break;
    case kQueueDriverHigh: queue.available = with_high(queue.available, value); break;
    case kQueueDeviceLow: queue.used = with_low(queue.used, value); break;
    case kQueueDeviceHigh: queue.used = with_high(queue.used, value); break;
    default: refuse();
    }
}

/// Bits are only ever added, in the order of section 3.1.1; writing 0 resets.
void MmioTransport::write_status(std::uint32_t value)
{
    if (value == 0) return reset_locked();
    const auto current = status_.load();
    const auto writable = kAcknowledge | kDriver | kDriverOk | kFeaturesOk | kFailed;
    const auto added = value & writable & ~current;
    if ((current & writable & ~value) != 0) return refuse();

    if ((added & kFailed) != 0) status_.fetch_or(kFailed);
    if ((added & kAcknowledge) != 0) status_.fetch_or(kAcknowledge);
    if ((added & kDriver) != 0) {
        if (!has_status(kAcknowledge)) return refuse();
        status_.fetch_or(kDriver);
    }
    if ((added & kFeaturesOk) != 0) {
        // Not setting the bit is how the device says no.
        if (!has_status(kDriver) || !features_acceptable()) return refuse();
        status_.fetch_or(kFeaturesOk);
    }
    if ((added & kDriverOk) != 0) {
        // The driver has to read FEATURES_OK back before it goes on, so both can't be new at once.
        if ((current & kFeaturesOk) == 0 || (current & (kNeedsReset | kFailed)) != 0) return refuse();
        activate();
    }
}

bool MmioTransport::features_acceptable() const
{
    return (driver_features_ & ~device_->features()) == 0 && (driver_features_ & kFeatureVersion1) != 0;
}

Result<std::vector<ActiveQueue>> MmioTransport::ready_queues() const
{
    const RingFeatures features{.indirect = (driver_features_ & kFeatureIndirect) != 0,
                                .event_index = (driver_features_ & kFeatureEventIndex) != 0};
    std::vector<ActiveQueue> active;
    for (std::uint16_t index = 0; index < queues_.size(); ++index) {
        const auto& registers = queues_[index];
        if (!registers.ready) continue;
        if (registers.size > device_->queue_sizes()[index]) return Error{ErrorCode::kInvalid, "queue size is too large"};
        const RingLayout layout{.size = static_cast<std::uint16_t>(registers.size),
                                .descriptors = Gpa{registers.descriptors},
                                .available = Gpa{registers.available},
                                .used = Gpa{registers.used}};
        auto queue = SplitQueue::create(memory_, layout, features);
        if (!queue) return queue.error();
        active.push_back({index, std::move(*queue), &doorbells_[index].event});
    }
    return active;
}

void MmioTransport::activate()
{
    auto queues = ready_queues();
    status_.fetch_or(kDriverOk);
    if (!queues) return needs_reset(queues.error().message());
    ++activations_;
    active_ = true;
    device_->activate(driver_features_, std::move(*queues), *this);
    // Chains may have been made available before the device listened.
    for (const auto& doorbell : doorbells_) doorbell.event.signal();
}

void MmioTransport::reset()
{
    const std::scoped_lock lock{mutex_};
    reset_locked();
}

void MmioTransport::reset_locked()
{
    if (active_) device_->reset();
    active_ = false;
    ++resets_;
    for (const auto& doorbell : doorbells_) doorbell.event.drain();
    std::ranges::fill(queues_, QueueRegisters{});
    queue_select_ = device_features_select_ = driver_features_select_ = 0;
    driver_features_ = 0;
    interrupt_status_.store(0);
    status_.store(0);
}

/// Where the registry refused, or the value names no queue, the write comes here by an exit.
void MmioTransport::notify(std::uint32_t queue)
{
    if (queue >= doorbells_.size()) return refuse();
    ++software_notifies_;
    doorbells_[queue].event.signal();
}

void MmioTransport::used_buffers()
{
    interrupt_status_.fetch_or(kUsedBuffer);
    line_.raise();
}

void MmioTransport::configuration_changed()
{
    if (!has_status(kDriverOk)) return;
    interrupt_status_.fetch_or(kConfigChange);
    line_.raise();
}

void MmioTransport::needs_reset(std::string_view reason)
{
    if ((status_.fetch_or(kNeedsReset) & kNeedsReset) != 0) return;
    ++broken_;
    configuration_changed();
    const std::scoped_lock lock{log_mutex_};
    if (!log_limit_.allow()) return;
    log_warning("virtio device needs reset", field("device", static_cast<std::uint32_t>(device_->id())) +
                                                 field("window", window_.value()) + field("reason", reason));
}

void MmioTransport::refuse() { ++refused_accesses_; }

TransportCounters MmioTransport::counters() const
{
    return {.refused_accesses = refused_accesses_.load(),
            .activations = activations_.load(),
            .resets = resets_.load(),
            .broken = broken_.load(),
            .software_notifies = software_notifies_.load()};
}

}  // namespace splitvisor::vmm::virtio
