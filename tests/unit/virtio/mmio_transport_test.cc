#include "vmm/virtio/mmio_transport.h"

#include <boost/test/unit_test.hpp>

#include <array>
#include <random>

#include "tests/fakes/guest_driver.h"

namespace splitvisor::vmm::virtio {

using fakes::DeviceUnderTest;
using fakes::DriverRing;
using fakes::GuestRam;

namespace {

constexpr std::uint64_t kFeatures = kCommonFeatures | 0b101;

/// Remembers what the transport asked of it.
class RecordingDevice final : public VirtioDevice {
  public:
    struct Record {
        int activations = 0;
        int resets = 0;
        bool active = false;
        std::uint64_t features = 0;
        std::vector<std::uint16_t> queues;
        std::vector<std::uint16_t> queue_sizes;
        DeviceInterrupt* interrupt = nullptr;
        std::vector<std::byte> config = std::vector<std::byte>(12, std::byte{0x5a});
        std::uint32_t generation = 0;
        int config_writes = 0;
    };
    explicit RecordingDevice(Record& record) : record_{record} {}

    [[nodiscard]] DeviceId id() const override { return DeviceId::kRng; }
    [[nodiscard]] std::uint64_t features() const override { return kFeatures; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const override { return kSizes; }
    void read_config(std::uint32_t offset, std::span<std::byte> into) const override
    {
        read_config_bytes(record_.config, offset, into);
    }
    void write_config(std::uint32_t, std::span<const std::byte>) override { ++record_.config_writes; }
    [[nodiscard]] std::uint32_t config_generation() const override { return record_.generation; }
    void activate(std::uint64_t features, std::vector<ActiveQueue> queues, DeviceInterrupt& interrupt) override
    {
        BOOST_REQUIRE(!record_.active);
        record_.active = true;
        ++record_.activations;
        record_.features = features;
        record_.queues.clear();
        record_.queue_sizes.clear();
        for (const auto& queue : queues) {
            record_.queues.push_back(queue.index);
            record_.queue_sizes.push_back(queue.queue.size());
        }
        record_.interrupt = &interrupt;
    }
    void reset() override
    {
        BOOST_REQUIRE(record_.active);
        record_.active = false;
        ++record_.resets;
    }

  private:
    static constexpr std::array<std::uint16_t, 3> kSizes{8, 16, 256};
    Record& record_;
};

struct TransportFixture {
    void up()
    {
        BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
        device.set_queue(0, ring.layout());
        device.driver_ok();
        BOOST_REQUIRE(record.active);
    }
    std::uint64_t refused() { return device.transport().counters().refused_accesses; }

    GuestRam ram{64 * kKiB};
    DriverRing ring{ram, Gpa{0x1000}, 8};
    RecordingDevice::Record record;
    DeviceUnderTest device{std::make_unique<RecordingDevice>(record), ram};
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(mmio_transport, TransportFixture)

BOOST_AUTO_TEST_CASE(says_what_it_is)
{
    BOOST_TEST(device.read(0x00) == 0x74726976u);
    BOOST_TEST(device.read(0x04) == 2u);
    BOOST_TEST(device.read(0x08) == 4u);
    BOOST_TEST(device.read(0xb0) == 0xffffffffu);
    BOOST_TEST(device.read(0xb4) == 0xffffffffu);
    BOOST_TEST(device.offered() == kFeatures);
    device.write(0x14, 2);
    BOOST_TEST(device.read(0x10) == 0u);
}

BOOST_AUTO_TEST_CASE(brings_a_device_up_with_the_queues_made_ready)
{
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1 | 1));
    const DriverRing third{ram, Gpa{0x4000}, 128};
    device.set_queue(0, ring.layout());
    device.set_queue(2, third.layout());
    BOOST_TEST(device.read(0x44) == 1u);
    device.driver_ok();
    BOOST_TEST(device.status() == 15u);
    BOOST_TEST(record.activations == 1);
    BOOST_TEST(record.features == (kFeatureVersion1 | 1));
    BOOST_TEST(record.queues == (std::vector<std::uint16_t>{0, 2}), boost::test_tools::per_element());
    BOOST_TEST(record.queue_sizes == (std::vector<std::uint16_t>{8, 128}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(answers_every_width_at_every_offset_without_harm)
{
    up();
    // Every width a bus could pass on, and more, at every offset of the window and beyond it.
    std::array<std::byte, 16> bytes{};
    for (std::uint64_t offset = 0; offset < 2 * kMmioWindowBytes; ++offset) {
        for (const std::size_t width : {0, 1, 2, 3, 4, 5, 8, 16}) {
            const auto area = std::span{bytes}.first(width);
            std::ranges::fill(area, std::byte{0xcc});
            device.transport().read(offset, area);
            const bool control = offset < 0x100 && (width != 4 || offset % 4 != 0);
            const bool beyond = offset >= 0x200;
            if (control || beyond) BOOST_REQUIRE(std::ranges::all_of(area, [](std::byte b) { return b == std::byte{0}; }));
        }
    }
    for (const auto offset : {~std::uint64_t{0}, ~std::uint64_t{0} - 3, std::uint64_t{1} << 32}) {
        device.transport().read(offset, std::span{bytes}.first(4));
        device.transport().write(offset, std::span{bytes}.first(4));
    }
    for (std::uint64_t offset = 0; offset < kMmioWindowBytes; ++offset) {
        for (const std::size_t width : {0, 1, 2, 3, 5, 8, 16}) {
            device.transport().write(offset, std::span{bytes}.first(width));
        }
    }
    BOOST_TEST(device.status() == 15u);
    BOOST_TEST(record.resets == 0);
    BOOST_TEST(refused() > 1000u);
}

BOOST_AUTO_TEST_CASE(reads_configuration_in_any_width_with_zeros_behind_it)
{
    for (const std::size_t width : {1, 2, 4, 8}) {
        std::array<std::byte, 8> bytes{};
        device.transport().read(0x100, std::span{bytes}.first(width));
        BOOST_TEST((bytes[width - 1] == std::byte{0x5a}));
    }
    BOOST_TEST(device.read(0x10a) == 0x5a5au);
    BOOST_TEST(device.read(0x10c) == 0u);
    BOOST_TEST(device.read(0x1fc) == 0u);
    std::array<std::byte, 8> across{};
    device.transport().read(0x1fc, across);
    BOOST_TEST(refused() == 1u);
}

BOOST_AUTO_TEST_CASE(refuses_features_it_did_not_offer)
{
    BOOST_TEST(!device.negotiate(kFeatureVersion1 | 2));
    BOOST_TEST(!device.negotiate(kFeatureVersion1 | std::uint64_t{1} << 63));
    BOOST_TEST(!device.negotiate(kFeatureIndirect));
    BOOST_TEST(device.status() == 3u);
    BOOST_TEST(device.negotiate(kFeatures));
}

BOOST_AUTO_TEST_CASE(does_not_change_features_after_features_ok)
{
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
    device.write(0x24, 0);
    device.write(0x20, 0xffffffff);
    device.driver_ok();
    BOOST_TEST(record.features == kFeatureVersion1);
}

BOOST_AUTO_TEST_CASE(takes_status_bits_in_order_only)
{
    device.write(0x70, 2);
    BOOST_TEST(device.status() == 0u);
    device.write(0x70, 4);
    device.write(0x70, 8);
    BOOST_TEST(device.status() == 0u);
    device.write(0x70, 1);
    device.write(0x70, 1 | 2 | 4);
    BOOST_TEST(device.status() == 3u);
    device.write(0x24, 1);
    device.write(0x20, 1);
    device.write(0x70, 15);
    BOOST_TEST(device.status() == 11u);
    BOOST_TEST(record.activations == 0);
    device.write(0x70, 1);
    BOOST_TEST(device.status() == 11u);
    device.write(0x70, 15);
    BOOST_TEST(record.activations == 1);
}

BOOST_AUTO_TEST_CASE(activates_once_however_often_driver_ok_is_written)
{
    up();
    device.driver_ok();
    device.write(0x70, 15);
    BOOST_TEST(record.activations == 1);
}

BOOST_AUTO_TEST_CASE(does_not_start_a_device_whose_driver_failed)
{
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
    device.write(0x70, 11 | 128);
    device.write(0x70, 15 | 128);
    BOOST_TEST(record.activations == 0);
    BOOST_TEST(device.status() == (11u | 128u));
}

BOOST_AUTO_TEST_CASE(ignores_queue_registers_before_features_ok)
{
    device.write(0x70, 1);
    device.write(0x70, 3);
    device.set_queue(0, ring.layout());
    BOOST_TEST(device.read(0x44) == 0u);
    BOOST_TEST(refused() == 8u);
}

BOOST_AUTO_TEST_CASE(ignores_every_configuration_register_after_driver_ok)
{
    up();
    // A queue that could be changed now would be served at addresses nobody checked.
    for (const std::uint64_t offset : {0x20, 0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4}) {
        const auto before = refused();
        device.write(offset, 0);
        device.write(offset, 0xffffffff);
        BOOST_TEST(refused() == before + 2);
    }
    BOOST_TEST(device.read(0x44) == 1u);
    BOOST_TEST(record.activations == 1);
    BOOST_TEST(record.resets == 0);
}

BOOST_AUTO_TEST_CASE(ignores_addresses_of_a_queue_that_is_ready)
{
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
    device.set_queue(0, ring.layout());
    device.write(0x38, 3);
    device.write(0x80, 0xffffffff);
    device.driver_ok();
    BOOST_TEST(!device.needs_reset());
    BOOST_TEST(record.queue_sizes.front() == 8);
}

BOOST_AUTO_TEST_CASE(shows_nothing_behind_a_queue_select_out_of_range)
{
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
    for (const std::uint32_t select : {3u, 4u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
        device.write(0x30, select);
        BOOST_TEST(device.read(0x34) == 0u);
        BOOST_TEST(device.read(0x44) == 0u);
        device.write(0x38, 8);
        device.write(0x44, 1);
        BOOST_TEST(device.read(0x44) == 0u);
    }
    device.write(0x30, 2);
    BOOST_TEST(device.read(0x34) == 256u);
}

BOOST_AUTO_TEST_CASE(needs_reset_when_a_queue_was_ready_before_it_had_addresses)
{
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
    device.write(0x30, 0);
    device.write(0x44, 1);
    device.driver_ok();
    BOOST_TEST(device.needs_reset());
    BOOST_TEST(record.activations == 0);
    BOOST_TEST(device.read(0x60) == 2u);
    BOOST_TEST(device.line.raised() == 1u);
    BOOST_TEST(device.transport().counters().broken == 1u);
}

BOOST_AUTO_TEST_CASE(needs_reset_when_a_ring_is_not_in_ram)
{
    using L = RingLayout;
    const L bad[] = {{0, Gpa{0x1000}, Gpa{0x2000}, Gpa{0x3000}},
                     {3, Gpa{0x1000}, Gpa{0x2000}, Gpa{0x3000}},
                     {16, Gpa{0x1000}, Gpa{0x2000}, Gpa{0x3000}},
                     {8, Gpa{0x1001}, Gpa{0x2000}, Gpa{0x3000}},
                     {8, Gpa{0x1000}, DeviceUnderTest::kWindow, Gpa{0x3000}},
                     {8, Gpa{0x1000}, Gpa{0x2000}, Gpa{~std::uint64_t{0} - 7}}};
    for (const auto& layout : bad) {
        BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
        device.set_queue(0, layout);
        device.driver_ok();
        BOOST_TEST(device.needs_reset());
        BOOST_TEST(record.activations == 0);
    }
    // Sizes are 32-bit registers: one that is right in its low half is wrong all the same.
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
    device.set_queue(0, ring.layout(), 0);
    device.write(0x38, 0x10008);
    device.write(0x44, 1);
    device.driver_ok();
    BOOST_TEST(device.needs_reset());
    up();
    BOOST_TEST(!device.needs_reset());
}

BOOST_AUTO_TEST_CASE(is_as_new_after_a_reset)
{
    up();
    record.interrupt->used_buffers();
    device.write(0x70, 0);
    BOOST_TEST(record.resets == 1);
    BOOST_TEST(device.status() == 0u);
    BOOST_TEST(device.read(0x60) == 0u);
    BOOST_TEST(device.read(0x44) == 0u);
    BOOST_REQUIRE(device.negotiate(kFeatureVersion1));
    device.driver_ok();
    BOOST_TEST(record.activations == 2);
    BOOST_TEST(record.queues.empty());
    device.transport().reset();
    BOOST_TEST(record.resets == 2);
    BOOST_TEST(device.status() == 0u);
}

BOOST_AUTO_TEST_CASE(survives_a_storm_of_resets)
{
    for (int i = 0; i < 10'000; ++i) {
        up();
        device.write(0x70, 0);
        device.write(0x70, 0);
    }
    BOOST_TEST(record.resets == 10'000);
}

BOOST_AUTO_TEST_CASE(rings_doorbells_without_an_exit)
{
    BOOST_TEST(device.doorbells.count() == 3u);
    device.notify(1);
    BOOST_TEST(device.transport().counters().software_notifies == 0u);
    device.destroy();
    BOOST_TEST(device.doorbells.count() == 0u);
}

BOOST_AUTO_TEST_CASE(ignores_notifications_for_queues_that_do_not_exist)
{
    up();
    std::mt19937 random{3};
    for (const std::uint32_t queue : {3u, 4u, 0xffffu, 0x10000u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) device.notify(queue);
    for (int i = 0; i < 10'000; ++i) device.notify(static_cast<std::uint32_t>(3 + random() / 2));
    BOOST_TEST(device.transport().counters().software_notifies == 0u);
    BOOST_TEST(refused() == 10'007u);
}

BOOST_AUTO_TEST_CASE(works_without_doorbells_from_the_registry)
{
    fakes::FakeDoorbells none;
    none.refuse = true;
    RecordingDevice::Record other;
    auto transport = MmioTransport::create(std::make_unique<RecordingDevice>(other), ram.memory(), device.line, none, Gpa{0xd0001000});
    BOOST_REQUIRE(transport.ok());
    (*transport)->write(0x50, bytes_of(std::uint32_t{2}));
    BOOST_TEST((*transport)->counters().software_notifies == 1u);
}

BOOST_AUTO_TEST_CASE(clears_the_interrupt_bits_that_are_acknowledged)
{
    up();
    record.interrupt->used_buffers();
    record.interrupt->configuration_changed();
    BOOST_TEST(device.line.raised() == 2u);
    BOOST_TEST(device.read(0x60) == 3u);
    device.write(0x64, 0xfffffffc);
    BOOST_TEST(device.read(0x60) == 3u);
    device.write(0x64, 1);
    BOOST_TEST(device.read(0x60) == 2u);
    device.write(0x64, 0xffffffff);
    BOOST_TEST(device.read(0x60) == 0u);
}

BOOST_AUTO_TEST_CASE(raises_needs_reset_once_and_stays_so_until_reset)
{
    up();
    for (int i = 0; i < 100; ++i) record.interrupt->needs_reset("test");
    BOOST_TEST(device.line.raised() == 1u);
    BOOST_TEST(device.read(0x60) == 2u);
    BOOST_TEST(device.status() == (15u | 64u));
    device.write(0x70, 15);
    BOOST_TEST(device.needs_reset());
    device.write(0x70, 0);
    BOOST_TEST(!device.needs_reset());
}

BOOST_AUTO_TEST_CASE(passes_configuration_writes_on_only_to_a_driver_in_good_standing)
{
    device.write(0x104, 1);
    BOOST_TEST(record.config_writes == 0);
    up();
    device.write(0x104, 1);
    BOOST_TEST(record.config_writes == 1);
    record.interrupt->needs_reset("test");
    device.write(0x104, 1);
    BOOST_TEST(record.config_writes == 1);
}

BOOST_AUTO_TEST_CASE(shows_the_generation_of_the_configuration)
{
    record.generation = 77;
    BOOST_TEST(device.read(0xfc) == 77u);
}

BOOST_AUTO_TEST_CASE(keeps_its_promises_under_random_register_accesses)
{
    // Values that matter, in any order: the device must see activate and reset in turn, with checked queues only.
    std::mt19937 random{11};
    const std::array<std::uint32_t, 14> offsets{0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0xa0, 0x100};
    const std::array<std::uint32_t, 16> values{0, 1, 2, 3, 4, 8, 11, 15, 16, 0x80, 256, 0x1000, 0x2000, 0x3000, 0x20000000, 0xffffffff};
    for (int i = 0; i < 300'000; ++i) {
        if (random() % 64 == 0) {
            (void)device.negotiate(kFeatureVersion1);
            device.set_queue(static_cast<std::uint32_t>(random() % 4), ring.layout());
            device.driver_ok();
        }
        device.write(offsets[random() % offsets.size()], values[random() % values.size()]);
        (void)device.read(4 * (random() % 0x80));
        for (const auto size : record.queue_sizes) BOOST_REQUIRE((size != 0 && size <= 256 && (size & (size - 1)) == 0));
        BOOST_REQUIRE(record.active == (record.activations == record.resets + 1));
        if (record.active) BOOST_REQUIRE((device.status() & 4) != 0);
    }
    BOOST_TEST(record.activations > 500);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::virtio
