#include "vmm/virtio/split_queue.h"

#include <boost/test/unit_test.hpp>

#include <atomic>
#include <random>
#include <thread>

#include "tests/fakes/guest_driver.h"

namespace splitvisor::vmm::virtio {

using fakes::Buffer;
using fakes::DriverRing;
using fakes::GuestRam;
using fakes::kDescIndirect;
using fakes::kDescNext;
using fakes::kDescWrite;

namespace {

constexpr Gpa kRing{0x1000};
constexpr Gpa kData{0x8000};
constexpr std::uint64_t kRamBytes = 256 * kKiB;

struct QueueFixture {
    explicit QueueFixture(std::uint16_t size = 8, RingFeatures features = {.indirect = true, .event_index = false})
        : ring{ram, kRing, size, features.event_index}, queue{make(features)}
    {
    }
    SplitQueue make(RingFeatures features)
    {
        auto made = SplitQueue::create(ram.memory(), ring.layout(), features);
        BOOST_REQUIRE(made.ok());
        return std::move(*made);
    }
    /// One head made available, as the driver would.
    void offer(std::uint16_t head)
    {
        ring.offer(head);
        (void)ring.publish();
    }
    /// What a malformed chain must lead to: returned with length 0, and the ring goes on.
    void expect_bad_chain(std::uint16_t head)
    {
        offer(head);
        BOOST_TEST((queue.pop(chain) == PopResult::kBadChain));
        (void)queue.publish();
        const auto used = ring.take_used();
        BOOST_REQUIRE(used.has_value());
        BOOST_TEST(used->head == head);
        BOOST_TEST(used->length == 0u);
        BOOST_TEST(queue.in_flight() == 0);
        BOOST_TEST(queue.counters().bad_chains == 1u);
        expect_working();
    }
    void expect_working()
    {
        ring.descriptor(1, kData, 32, 0, 0);
        offer(1);
        BOOST_TEST((queue.pop(chain) == PopResult::kChain));
        BOOST_TEST(chain.readable.bytes() == 32u);
        queue.push(chain.head, 0);
        (void)queue.publish();
        BOOST_TEST(ring.take_used()->head == 1u);
    }
    void expect_broken()
    {
        BOOST_TEST((queue.pop(chain) == PopResult::kBroken));
        BOOST_TEST((queue.pop(chain) == PopResult::kBroken));
        BOOST_TEST(queue.broken());
        BOOST_TEST(!queue.publish());
        BOOST_TEST(queue.counters().broken == 1u);
    }

    GuestRam ram{kRamBytes};
    DriverRing ring;
    SplitQueue queue;
    Chain chain;
};

struct EventFixture : QueueFixture {
    EventFixture() : QueueFixture{8, {.indirect = false, .event_index = true}} {}
};
struct PlainFixture : QueueFixture {
    PlainFixture() : QueueFixture{8, {.indirect = false, .event_index = false}} {}
};

bool can_create(const GuestRam& ram, RingLayout layout)
{
    return SplitQueue::create(ram.memory(), layout, {}).ok();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(split_queue_geometry)

BOOST_AUTO_TEST_CASE(refuses_sizes_that_are_no_power_of_two_or_too_large)
{
    const GuestRam ram{kRamBytes};
    for (const std::uint16_t size : std::initializer_list<std::uint16_t>{0, 3, 5, 6, 7, 255, 257, 512, 1024, 32768, 65535}) {
        BOOST_TEST(!can_create(ram, {size, Gpa{0x1000}, Gpa{0x4000}, Gpa{0x8000}}));
    }
    for (const std::uint16_t size : std::initializer_list<std::uint16_t>{1, 2, 4, 128, 256}) {
        BOOST_TEST(can_create(ram, {size, Gpa{0x1000}, Gpa{0x4000}, Gpa{0x8000}}));
    }
}

BOOST_AUTO_TEST_CASE(refuses_misaligned_areas)
{
    const GuestRam ram{kRamBytes};
    BOOST_TEST(!can_create(ram, {8, Gpa{0x1008}, Gpa{0x4000}, Gpa{0x8000}}));
    BOOST_TEST(!can_create(ram, {8, Gpa{0x1000}, Gpa{0x4001}, Gpa{0x8000}}));
    BOOST_TEST(!can_create(ram, {8, Gpa{0x1000}, Gpa{0x4000}, Gpa{0x8002}}));
}

BOOST_AUTO_TEST_CASE(refuses_areas_outside_ram_by_one_byte_or_by_far)
{
    const GuestRam ram{kRamBytes};
    const auto last = [](std::uint64_t bytes) { return Gpa{kRamBytes - bytes}; };
    // Exactly at the end fits; descriptors 16 * 8, available 4 + 2 * 8 + 2, used 4 + 8 * 8 + 2.
    BOOST_TEST(can_create(ram, {8, last(128), Gpa{0x4000}, Gpa{0x8000}}));
    BOOST_TEST(can_create(ram, {8, Gpa{0x1000}, last(22), Gpa{0x8000}}));
    BOOST_TEST(can_create(ram, {8, Gpa{0x1000}, Gpa{0x4000}, last(72)}));
    BOOST_TEST(!can_create(ram, {8, last(112), Gpa{0x4000}, Gpa{0x8000}}));
    BOOST_TEST(!can_create(ram, {8, Gpa{0x1000}, last(20), Gpa{0x8000}}));
    BOOST_TEST(!can_create(ram, {8, Gpa{0x1000}, Gpa{0x4000}, last(68)}));
    for (const auto far : {kHoleStart, Gpa{0xfee00000}, Gpa{~std::uint64_t{0} - 7}, Gpa{~std::uint64_t{0} - 15}}) {
        BOOST_TEST(!can_create(ram, {8, Gpa{far.value() & ~std::uint64_t{15}}, Gpa{0x4000}, Gpa{0x8000}}));
        BOOST_TEST(!can_create(ram, {8, Gpa{0x1000}, Gpa{far.value() & ~std::uint64_t{1}}, Gpa{0x8000}}));
        BOOST_TEST(!can_create(ram, {8, Gpa{0x1000}, Gpa{0x4000}, Gpa{far.value() & ~std::uint64_t{3}}}));
    }
}

BOOST_AUTO_TEST_CASE(refuses_areas_that_straddle_the_hole)
{
    // The host mapping of the two ranges is contiguous, guest-physical space is not. Pages are touched by none.
    auto mapping = Mapping::anonymous(ByteCount{kHoleStart.value() + kMiB});
    BOOST_REQUIRE(mapping.ok());
    const GuestMemory memory{mapping->bytes(), ByteCount{mapping->size()}};
    const RingLayout good{8, Gpa{kHoleStart.value() - 128}, Gpa{0x4000}, kHoleEnd};
    const RingLayout straddling{8, Gpa{kHoleStart.value() - 64}, Gpa{0x4000}, Gpa{0x8000}};
    BOOST_TEST(SplitQueue::create(memory, good, {}).ok());
    BOOST_TEST(!SplitQueue::create(memory, straddling, {}).ok());
}

BOOST_AUTO_TEST_CASE(survives_areas_that_overlap)
{
    const GuestRam ram{kRamBytes};
    auto queue = SplitQueue::create(ram.memory(), {8, Gpa{0x1000}, Gpa{0x1000}, Gpa{0x1000}}, {});
    BOOST_REQUIRE(queue.ok());
    Chain chain;
    for (std::uint32_t pattern = 1; pattern < 2000; ++pattern) {
        ram.put<std::uint32_t>(Gpa{0x1000} + (pattern % 32) * 4, pattern * 2654435761u);
        if (queue->pop(chain) == PopResult::kChain) queue->push(chain.head, 7);
        (void)queue->publish();
        (void)queue->enable_notifications();
    }
    BOOST_TEST(queue->in_flight() == 0);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(split_queue_chains, QueueFixture)

BOOST_AUTO_TEST_CASE(gives_readable_then_writable_pieces)
{
    ram.put<std::uint32_t>(kData, 0x11223344);
    ram.put<std::uint32_t>(kData + 0x100, 0x55667788);
    (void)ring.add({{kData, 4, false}, {kData + 0x100, 4, false}, {kData + 0x200, 6, true}, {kData + 0x300, 10, true}});
    (void)ring.publish();
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(chain.readable.bytes() == 8u);
    BOOST_TEST(chain.writable.bytes() == 16u);

    std::uint32_t middle = 0;
    BOOST_TEST(chain.readable.read(ram.memory(), 2, std::as_writable_bytes(std::span{&middle, 1})));
    BOOST_TEST(middle == 0x77881122u);
    BOOST_TEST(chain.writable.write(ram.memory(), 4, bytes_of(std::uint32_t{0xaabbccdd})));
    BOOST_TEST(ram.get<std::uint16_t>(kData + 0x204) == 0xccddu);
    BOOST_TEST(ram.get<std::uint16_t>(kData + 0x300) == 0xaabbu);
    BOOST_TEST(!chain.writable.write(ram.memory(), 13, bytes_of(std::uint32_t{1})));
    BOOST_TEST(!chain.readable.read(ram.memory(), ~std::uint64_t{0}, std::as_writable_bytes(std::span{&middle, 1})));

    queue.push(chain.head, 16);
    BOOST_TEST(queue.publish());
    BOOST_TEST(ring.take_used()->length == 16u);
    BOOST_TEST((queue.pop(chain) == PopResult::kEmpty));
}

BOOST_AUTO_TEST_CASE(walks_the_longest_legal_chain)
{
    for (std::uint16_t i = 0; i < 7; ++i) {
        ring.descriptor(i, kData + 16u * i, 16, kDescNext, static_cast<std::uint16_t>(i + 1));
    }
    ring.descriptor(7, kData, 16, 0, 0);
    offer(0);
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(chain.readable.bytes() == 128u);
}

BOOST_AUTO_TEST_CASE(returns_a_chain_whose_next_is_beyond_the_table)
{
    for (const std::uint16_t next : std::initializer_list<std::uint16_t>{8, 9, 255, 65535}) {
        QueueFixture other;
        other.ring.descriptor(0, kData, 16, kDescNext, next);
        other.expect_bad_chain(0);
    }
}

BOOST_AUTO_TEST_CASE(returns_a_self_loop)
{
    ring.descriptor(0, kData, 16, kDescNext, 0);
    expect_bad_chain(0);
}

BOOST_AUTO_TEST_CASE(returns_a_loop_of_two)
{
    ring.descriptor(0, kData, 16, kDescNext, 3);
    ring.descriptor(3, kData, 16, kDescNext, 0);
    expect_bad_chain(0);
}

BOOST_AUTO_TEST_CASE(returns_readable_after_writable)
{
    ring.descriptor(0, kData, 16, kDescWrite | kDescNext, 2);
    ring.descriptor(2, kData, 16, 0, 0);
    expect_bad_chain(0);
}

BOOST_AUTO_TEST_CASE(returns_pieces_outside_ram)
{
    const std::pair<std::uint64_t, std::uint32_t> pieces[] = {
        {kRamBytes - 15, 16},  {kRamBytes, 1},           {kHoleStart.value(), 16},
        {0xd0000000, 4},       {~std::uint64_t{0}, 1},   {~std::uint64_t{0} - 7, 16},
        {0, 0xffffffff},       {kRamBytes - 1, 2},       {std::uint64_t{1} << 63, 4096},
    };
    for (const auto& [address, length] : pieces) {
        for (const std::uint16_t flags : {std::uint16_t{0}, kDescWrite}) {
            QueueFixture other;
            other.ring.descriptor(0, Gpa{address}, length, flags, 0);
            other.expect_bad_chain(0);
        }
    }
}

BOOST_AUTO_TEST_CASE(accepts_the_last_byte_of_ram)
{
    ring.descriptor(0, Gpa{kRamBytes - 1}, 1, kDescWrite, 0);
    offer(0);
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(chain.writable.write(ram.memory(), 0, bytes_of(std::uint8_t{9})));
}

BOOST_AUTO_TEST_CASE(skips_pieces_of_no_length)
{
    ring.descriptor(0, Gpa{~std::uint64_t{0}}, 0, kDescNext, 2);
    ring.descriptor(2, kData, 16, 0, 0);
    offer(0);
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(chain.readable.segments().size() == 1u);
}

BOOST_AUTO_TEST_CASE(ignores_flags_that_mean_nothing)
{
    ring.descriptor(0, kData, 16, 0xfff8, 0xffff);
    offer(0);
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
}

BOOST_AUTO_TEST_CASE(returns_a_chain_of_more_than_four_gigabytes)
{
    auto mapping = Mapping::anonymous(ByteCount{2 * kGiB + kMiB});
    BOOST_REQUIRE(mapping.ok());
    const GuestMemory memory{mapping->bytes(), ByteCount{mapping->size()}};
    auto wide = SplitQueue::create(memory, ring.layout(), {});
    BOOST_REQUIRE(wide.ok());
    const auto descriptor = [&](std::uint64_t index, std::uint16_t flags, std::uint16_t next) {
        BOOST_TEST(memory.write(kRing + 16 * index, std::uint64_t{0}));
        BOOST_TEST(memory.write(kRing + 16 * index + 8, std::uint64_t{0x80000000u} | std::uint64_t{flags} << 32 | std::uint64_t{next} << 48));
    };
    descriptor(0, kDescNext, 1);
    descriptor(1, 0, 0);
    BOOST_TEST(memory.write(ring.layout().available + 2, std::uint16_t{1}));
    BOOST_TEST((wide->pop(chain) == PopResult::kBadChain));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(split_queue_indirect, QueueFixture)

BOOST_AUTO_TEST_CASE(walks_an_indirect_table)
{
    const std::vector<Buffer> buffers(200, Buffer{kData, 16, true});
    (void)ring.add_indirect(Gpa{0x4000}, buffers);
    (void)ring.publish();
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(chain.writable.bytes() == 3200u);
}

BOOST_AUTO_TEST_CASE(walks_plain_descriptors_before_an_indirect_one)
{
    ring.raw_descriptor(Gpa{0x4000}, kData, 8, kDescWrite, 0);
    ring.descriptor(0, kData, 16, kDescNext, 2);
    ring.descriptor(2, Gpa{0x4000}, 16, kDescIndirect | kDescWrite, 0);
    offer(0);
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(chain.readable.bytes() == 16u);
    BOOST_TEST(chain.writable.bytes() == 8u);
}

BOOST_AUTO_TEST_CASE(returns_an_indirect_table_of_impossible_length)
{
    for (const std::uint32_t length : {0u, 1u, 15u, 17u, 16u * 257u, 0xfffffff0u, 0xffffffffu}) {
        QueueFixture other;
        other.ring.descriptor(0, Gpa{0x4000}, length, kDescIndirect, 0);
        other.expect_bad_chain(0);
    }
}

BOOST_AUTO_TEST_CASE(returns_an_indirect_table_outside_ram)
{
    for (const std::uint64_t table : {kRamBytes - 8, kRamBytes, kHoleStart.value(), ~std::uint64_t{0} - 7}) {
        QueueFixture other;
        other.ring.descriptor(0, Gpa{table}, 16, kDescIndirect, 0);
        other.expect_bad_chain(0);
    }
}

BOOST_AUTO_TEST_CASE(returns_nested_indirect_tables)
{
    ring.raw_descriptor(Gpa{0x4000}, Gpa{0x4000}, 16, kDescIndirect, 0);
    ring.descriptor(0, Gpa{0x4000}, 16, kDescIndirect, 0);
    expect_bad_chain(0);
}

BOOST_AUTO_TEST_CASE(returns_indirect_with_next)
{
    ring.raw_descriptor(Gpa{0x4000}, kData, 16, 0, 0);
    ring.descriptor(0, Gpa{0x4000}, 16, kDescIndirect | kDescNext, 2);
    ring.descriptor(2, kData, 16, 0, 0);
    expect_bad_chain(0);
}

BOOST_AUTO_TEST_CASE(returns_a_loop_or_an_exit_inside_the_table)
{
    for (const std::uint16_t next : std::initializer_list<std::uint16_t>{0, 2, 7, 65535}) {
        QueueFixture other;
        other.ring.raw_descriptor(Gpa{0x4000}, kData, 16, kDescNext, next);
        other.ring.raw_descriptor(Gpa{0x4010}, kData, 16, kDescNext, 0);
        other.ring.descriptor(0, Gpa{0x4000}, 32, kDescIndirect, 0);
        other.expect_bad_chain(0);
    }
}

BOOST_FIXTURE_TEST_CASE(returns_indirect_that_was_not_negotiated, PlainFixture)
{
    ring.raw_descriptor(Gpa{0x4000}, kData, 16, 0, 0);
    ring.descriptor(0, Gpa{0x4000}, 16, kDescIndirect, 0);
    expect_bad_chain(0);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(split_queue_rings, QueueFixture)

BOOST_AUTO_TEST_CASE(gives_up_when_the_index_runs_ahead)
{
    ring.available_index(9);
    expect_broken();
}

BOOST_AUTO_TEST_CASE(gives_up_when_the_index_moves_back)
{
    expect_working();
    ring.available_index(0);
    expect_broken();
}

BOOST_AUTO_TEST_CASE(gives_up_on_a_head_beyond_the_table)
{
    offer(8);
    expect_broken();
}

BOOST_AUTO_TEST_CASE(gives_up_on_a_head_that_is_in_flight)
{
    ring.descriptor(3, kData, 16, 0, 0);
    offer(3);
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    offer(3);
    expect_broken();
    queue.push(3, 0);
}

BOOST_AUTO_TEST_CASE(never_has_more_in_flight_than_the_ring_holds)
{
    for (std::uint16_t i = 0; i < 8; ++i) {
        ring.descriptor(i, kData, 16, 0, 0);
        offer(i);
        BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    }
    BOOST_TEST(queue.in_flight() == 8);
    offer(0);
    expect_broken();
    BOOST_TEST(queue.in_flight() == 8);
}

BOOST_AUTO_TEST_CASE(goes_on_when_indices_wrap)
{
    for (std::uint32_t i = 0; i < 70'000; ++i) {
        BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
        (void)ring.publish();
        BOOST_REQUIRE((queue.pop(chain) == PopResult::kChain));
        queue.push(chain.head, i & 15);
        BOOST_REQUIRE(queue.publish());
        const auto used = ring.take_used();
        BOOST_REQUIRE(used.has_value());
        BOOST_REQUIRE(used->length == (i & 15));
    }
}

BOOST_AUTO_TEST_CASE(returns_chains_out_of_order)
{
    for (std::uint16_t i = 0; i < 4; ++i) BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
    (void)ring.publish();
    std::vector<std::uint16_t> heads;
    while (queue.pop(chain) == PopResult::kChain) heads.push_back(chain.head);
    for (auto head = heads.rbegin(); head != heads.rend(); ++head) queue.push(*head, *head);
    BOOST_TEST(!ring.take_used().has_value());
    BOOST_TEST(queue.publish());
    BOOST_TEST(!queue.publish());
    for (auto head = heads.rbegin(); head != heads.rend(); ++head) BOOST_TEST(ring.take_used()->head == *head);
}

BOOST_AUTO_TEST_CASE(respects_the_wish_not_to_be_interrupted)
{
    ring.available_flags(1);
    BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
    (void)ring.publish();
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    queue.push(chain.head, 0);
    BOOST_TEST(!queue.publish());
}

BOOST_AUTO_TEST_CASE(tells_when_it_wants_no_doorbell)
{
    queue.disable_notifications();
    BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
    BOOST_TEST(!ring.publish());
    BOOST_TEST(queue.enable_notifications());
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(!queue.enable_notifications());
    BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
    BOOST_TEST(ring.publish());
}

BOOST_FIXTURE_TEST_CASE(interrupts_when_the_used_index_passes_the_event, EventFixture)
{
    const auto complete = [&](int count) {
        for (int i = 0; i < count; ++i) BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
        (void)ring.publish();
        while (queue.pop(chain) == PopResult::kChain) queue.push(chain.head, 0);
        const bool interrupt = queue.publish();
        while (ring.take_used()) {}
        return interrupt;
    };
    ring.used_event(0);
    BOOST_TEST(complete(1));  // index 0 -> 1 passes 0
    BOOST_TEST(!complete(1));
    ring.used_event(3);
    BOOST_TEST(!complete(1));  // 2 -> 3 does not pass 3
    BOOST_TEST(complete(3));   // 3 -> 6 does
    ring.used_event(static_cast<std::uint16_t>(-1));
    BOOST_TEST(!complete(2));
}

BOOST_FIXTURE_TEST_CASE(survives_garbage_in_the_event_fields, EventFixture)
{
    std::mt19937 random{7};
    for (int i = 0; i < 2000; ++i) {
        ring.used_event(static_cast<std::uint16_t>(random()));
        ram.put(ring.layout().used + 4 + 8u * 8u, static_cast<std::uint16_t>(random()));
        BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
        (void)ring.publish();
        BOOST_REQUIRE((queue.pop(chain) == PopResult::kChain));
        queue.push(chain.head, 0);
        (void)queue.publish();
        BOOST_REQUIRE(!queue.enable_notifications());
        BOOST_REQUIRE(ring.available_event() == static_cast<std::uint16_t>(i + 1));
        BOOST_REQUIRE(ring.take_used().has_value());
    }
}

BOOST_FIXTURE_TEST_CASE(asks_for_the_doorbell_only_when_it_ran_dry, EventFixture)
{
    BOOST_TEST(!queue.enable_notifications());
    BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
    BOOST_TEST(ring.publish());
    BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
    BOOST_TEST(!ring.publish());
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(queue.enable_notifications());
    BOOST_TEST((queue.pop(chain) == PopResult::kChain));
    BOOST_TEST(!queue.enable_notifications());
    BOOST_REQUIRE(ring.add({{kData, 16, false}}).has_value());
    BOOST_TEST(ring.publish());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::virtio
