#include "vmm/virtio/balloon.h"

#include <boost/test/unit_test.hpp>

#include <random>

#include "tests/fakes/guest_driver.h"

namespace splitvisor::vmm::virtio {

using fakes::Buffer;
using fakes::DeviceUnderTest;
using fakes::DriverRing;
using fakes::eventually;
using fakes::GuestRam;

namespace {

constexpr std::uint64_t kRamBytes = 2 * kMiB;
constexpr std::uint32_t kRamPages = kRamBytes / kPageBytes;
constexpr Gpa kNumbers{0x10000};
constexpr std::uint64_t kStats = 1u << 1;
constexpr std::uint64_t kPoison = 1u << 4;
constexpr std::uint64_t kReporting = 1u << 5;
constexpr std::uint64_t kAll = kFeatureVersion1 | kFeatureIndirect | kStats | kPoison | kReporting;

struct BalloonFixture {
    using Calls = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

    BalloonFixture() : device{make(), ram} { up(kAll); }

    std::unique_ptr<VirtioDevice> make()
    {
        auto made = Balloon::create(ram.memory(), [this](Line first, std::uint32_t count) {
            ++forgetting;
            const std::scoped_lock both{gate, mutex};
            // What the fault engine demands of its caller.
            SPLITVISOR_CHECK(count > 0 && first.value() < kRamPages && count <= kRamPages - first.value());
            calls_.emplace_back(first.value(), count);
            used_at_last_call = report.used_index();
        });
        BOOST_REQUIRE(made.ok());
        balloon = made->get();
        return std::move(*made);
    }
    void up(std::uint64_t features, std::uint32_t poison = 0)
    {
        BOOST_REQUIRE(device.negotiate(features));
        device.write(0x10c, poison);
        std::uint32_t queue = 0;
        const auto fresh = [&](Gpa where) {
            ram.fill(where, 0x1000, std::byte{0});
            DriverRing ring{ram, where, 32};
            device.set_queue(queue++, ring.layout());
            return ring;
        };
        inflate = fresh(Gpa{0x1000});
        deflate = fresh(Gpa{0x2000});
        if ((features & kStats) != 0) stats = fresh(Gpa{0x3000});
        report_index = queue;
        if ((features & kReporting) != 0) report = fresh(Gpa{0x4000});
        device.driver_ok();
        BOOST_REQUIRE(!device.needs_reset());
    }
    Calls calls()
    {
        const std::scoped_lock lock{mutex};
        return calls_;
    }
    void run_pages(std::uint32_t queue, DriverRing& ring, const std::vector<std::uint32_t>& numbers)
    {
        ram.put(kNumbers, std::as_bytes(std::span{numbers}));
        BOOST_REQUIRE(ring.add({{kNumbers, static_cast<std::uint32_t>(4 * numbers.size()), false}}).has_value());
        BOOST_REQUIRE(device.complete(queue, ring).has_value());
    }
    void run_report(const std::vector<Buffer>& buffers)
    {
        BOOST_REQUIRE(report.add(buffers).has_value());
        BOOST_REQUIRE(device.complete(report_index, report).has_value());
    }

    GuestRam ram{kRamBytes};
    std::atomic<int> forgetting{0};
    std::mutex gate;  ///< who holds it keeps the device's thread waiting at the next page
    std::mutex mutex;
    Calls calls_;
    std::uint16_t used_at_last_call = 0;
    Balloon* balloon = nullptr;
    DriverRing inflate{ram, Gpa{0x1000}, 32};
    DriverRing deflate{ram, Gpa{0x2000}, 32};
    DriverRing stats{ram, Gpa{0x3000}, 32};
    DriverRing report{ram, Gpa{0x4000}, 32};
    std::uint32_t report_index = 3;
    DeviceUnderTest device;
};

using Calls = BalloonFixture::Calls;

}  // namespace

BOOST_FIXTURE_TEST_SUITE(balloon, BalloonFixture)

BOOST_AUTO_TEST_CASE(forgets_inflated_pages_in_runs)
{
    run_pages(0, inflate, {100, 101, 102, 200, 50, 51, 51});
    BOOST_TEST((calls() == Calls{{100, 3}, {200, 1}, {50, 2}, {51, 1}}));
    BOOST_TEST(balloon->counters().inflated_pages == 7u);
}

BOOST_AUTO_TEST_CASE(refuses_page_numbers_outside_ram)
{
    run_pages(0, inflate, {kRamPages, kRamPages - 1, 0xffffffff, 0x80000000, 0xc0000, 0xd0000, 0});
    BOOST_TEST((calls() == Calls{{kRamPages - 1, 1}, {0, 1}}));
    BOOST_TEST(balloon->counters().refused_pages == 5u);
}

BOOST_AUTO_TEST_CASE(looks_at_a_bounded_number_of_pages_in_a_request)
{
    ram.fill(kNumbers, 64 * kKiB, std::byte{0});
    const std::vector<Buffer> many(200, Buffer{kNumbers, 64 * kKiB, false});
    BOOST_REQUIRE(inflate.add_indirect(Gpa{0x8000}, many).has_value());
    BOOST_REQUIRE(device.complete(0, inflate).has_value());
    BOOST_TEST(calls().size() <= 1024u);
    BOOST_TEST(balloon->counters().refused_pages == 200u * 16384 - 1024);
}

BOOST_AUTO_TEST_CASE(accepts_requests_of_no_use)
{
    BOOST_REQUIRE(inflate.add({{kNumbers, 3, false}}).has_value());
    BOOST_REQUIRE(device.complete(0, inflate).has_value());
    BOOST_REQUIRE(inflate.add({{kNumbers, 64, true}}).has_value());
    BOOST_REQUIRE(device.complete(0, inflate).has_value());
    BOOST_TEST(calls().empty());
}

BOOST_AUTO_TEST_CASE(leaves_deflated_pages_alone)
{
    run_pages(1, deflate, {100, 101, 0xffffffff});
    BOOST_TEST(calls().empty());
    BOOST_TEST(balloon->counters().deflated_pages == 3u);
}

BOOST_AUTO_TEST_CASE(forgets_reported_ranges_before_it_returns_them)
{
    run_report({{Gpa{0x100000}, 0x40000, true}, {Gpa{0x180000}, 0x1000, true}});
    BOOST_TEST((calls() == Calls{{256, 64}, {384, 1}}));
    BOOST_TEST(used_at_last_call == 0);
    BOOST_TEST(report.used_index() == 1);
    BOOST_TEST(balloon->counters().reported_pages == 65u);
}

BOOST_AUTO_TEST_CASE(forgets_whole_pages_of_an_unaligned_range)
{
    run_report({{Gpa{0x100001}, 0x3000, true}, {Gpa{0x110fff}, 2, true}, {Gpa{0x120800}, 0x1000, true}, {Gpa{0x130000}, 0x1fff, true}});
    BOOST_TEST((calls() == Calls{{257, 2}, {304, 1}}));
}

BOOST_AUTO_TEST_CASE(returns_reports_outside_ram_without_forgetting)
{
    const std::pair<std::uint64_t, std::uint32_t> ranges[] = {{kRamBytes, 0x1000},
                                                              {kRamBytes - 0x1000, 0x2000},
                                                              {kHoleStart.value(), 0x1000},
                                                              {~std::uint64_t{0} - 0xfff, 0x1000},
                                                              {0xd0000000, 0x1000}};
    for (const auto& [address, length] : ranges) run_report({{Gpa{address}, length, true}});
    BOOST_TEST(calls().empty());
    BOOST_TEST(balloon->counters().bad_chains == 5u);
    run_report({{Gpa{kRamBytes - 0x1000}, 0x1000, true}});
    BOOST_TEST((calls() == Calls{{kRamPages - 1, 1}}));
}

BOOST_AUTO_TEST_CASE(ignores_readable_buffers_of_a_report)
{
    run_report({{Gpa{0x100000}, 0x1000, false}});
    BOOST_TEST(calls().empty());
}

BOOST_AUTO_TEST_CASE(forgets_no_more_than_all_ram_for_one_report)
{
    const std::vector<Buffer> all(250, Buffer{Gpa{0}, kRamBytes, true});
    BOOST_REQUIRE(report.add_indirect(Gpa{0x8000}, all).has_value());
    // The callback has no effect here, so the rings stay though they are among the pages.
    BOOST_REQUIRE(device.complete(report_index, report).has_value());
    BOOST_TEST((calls() == Calls{{0, kRamPages}}));
}

BOOST_AUTO_TEST_CASE(keeps_reported_pages_that_hold_a_poison)
{
    up(kAll, 0xaaaaaaaa);
    BOOST_TEST(device.read(0x10c) == 0xaaaaaaaau);
    run_report({{Gpa{0x100000}, 0x1000, true}});
    BOOST_TEST(calls().empty());
    up(kAll, 0);
    run_report({{Gpa{0x100000}, 0x1000, true}});
    BOOST_TEST(calls().size() == 1u);
}

BOOST_AUTO_TEST_CASE(numbers_queues_by_the_features_that_were_taken)
{
    up(kFeatureVersion1 | kReporting);
    BOOST_TEST(report_index == 2u);
    run_report({{Gpa{0x100000}, 0x1000, true}});
    BOOST_TEST((calls() == Calls{{256, 1}}));
}

BOOST_AUTO_TEST_CASE(tells_the_driver_of_a_new_target)
{
    const auto generation = device.read(0xfc);
    balloon->set_target(PageCount{123});
    BOOST_TEST(device.read(0x100) == 123u);
    BOOST_TEST(device.read(0xfc) != generation);
    BOOST_TEST(device.read(0x60) == 2u);
    BOOST_TEST(device.line.raised() == 1u);
    device.write(0x104, 99);
    BOOST_TEST(balloon->actual().value() == 99u);
    balloon->set_target(PageCount{std::uint64_t{1} << 40});
    BOOST_TEST(device.read(0x100) == 0xffffffffu);
}

BOOST_AUTO_TEST_CASE(ignores_writes_to_what_the_device_says)
{
    balloon->set_target(PageCount{7});
    device.write(0x100, 99);
    const std::array<std::byte, 8> wide{std::byte{1}};
    device.transport().write(0x100, wide);
    device.transport().write(0x104, std::span{wide}.first(2));
    device.write(0x1f0, 5);
    BOOST_TEST(device.read(0x100) == 7u);
    BOOST_TEST(balloon->actual().value() == 0u);
}

BOOST_AUTO_TEST_CASE(keeps_the_target_and_forgets_the_driver_at_reset)
{
    balloon->set_target(PageCount{7});
    device.write(0x104, 5);
    device.write(0x70, 0);
    BOOST_TEST(balloon->actual().value() == 0u);
    BOOST_TEST(device.read(0x100) == 7u);
    balloon->set_target(PageCount{8});
    BOOST_TEST(device.read(0x60) == 0u);
}

BOOST_AUTO_TEST_CASE(asks_for_statistics_and_reads_them)
{
    const auto put = [&](std::uint64_t slot, std::uint16_t tag, std::uint64_t value) {
        ram.put(kNumbers + 10 * slot, tag);
        ram.put(kNumbers + 10 * slot + 2, value);
    };
    balloon->request_stats();
    put(0, 4, 111);
    put(1, 5, 222);
    put(2, 999, 333);
    BOOST_REQUIRE(stats.add({{kNumbers, 30, false}}).has_value());
    device.publish(2, stats);
    BOOST_REQUIRE(eventually([&] { return balloon->stats().updates == 1; }));
    BOOST_TEST(balloon->stats().values[GuestMemoryStats::kFree].value() == 111u);
    BOOST_TEST(balloon->stats().values[GuestMemoryStats::kTotal].value() == 222u);
    BOOST_TEST(!balloon->stats().values[GuestMemoryStats::kAvailable].has_value());
    BOOST_TEST(!stats.take_used().has_value());

    balloon->request_stats();
    BOOST_REQUIRE(eventually([&] { return stats.take_used().has_value(); }));
    put(0, 4, 112);
    BOOST_REQUIRE(stats.add({{kNumbers, 9999, false}}).has_value());
    device.publish(2, stats);
    BOOST_REQUIRE(eventually([&] { return balloon->stats().updates == 2; }));
    BOOST_TEST(balloon->stats().values[GuestMemoryStats::kFree].value() == 112u);
}

BOOST_AUTO_TEST_CASE(takes_statistics_on_their_way_for_those_asked_for)
{
    BOOST_REQUIRE(inflate.add({{kNumbers, 4, false}}).has_value());
    BOOST_REQUIRE(stats.add({{kNumbers, 10, false}}).has_value());
    {
        // The device's thread finds request and buffer at the same time, whichever came first.
        const std::scoped_lock held{gate};
        device.publish(0, inflate);
        BOOST_REQUIRE(eventually([&] { return forgetting == 1; }));
        balloon->request_stats();
        device.publish(2, stats);
    }
    BOOST_REQUIRE(eventually([&] { return balloon->stats().updates == 1; }));
    // One more round, so that the request has had its turn.
    run_pages(1, deflate, {100});
    BOOST_TEST(stats.used_index() == 0);
    balloon->request_stats();
    BOOST_TEST(eventually([&] { return stats.used_index() == 1; }));
}

BOOST_AUTO_TEST_CASE(holds_one_statistics_buffer_however_many_come)
{
    for (int i = 0; i < 20; ++i) BOOST_REQUIRE(stats.add({{kNumbers, 10, false}}).has_value());
    device.publish(2, stats);
    BOOST_REQUIRE(eventually([&] { return stats.used_index() == 19; }));
    for (int i = 0; i < 5; ++i) balloon->request_stats();
    BOOST_REQUIRE(eventually([&] { return stats.used_index() == 20; }));
}

BOOST_AUTO_TEST_CASE(asks_for_reset_when_any_ring_breaks)
{
    for (std::uint32_t queue = 0; queue < 4; ++queue) {
        up(kAll);
        DriverRing* rings[] = {&inflate, &deflate, &stats, &report};
        rings[queue]->available_index(33);
        device.notify(queue);
        BOOST_REQUIRE(eventually([&] { return device.needs_reset(); }));
    }
}

BOOST_AUTO_TEST_CASE(survives_a_flood_and_resets)
{
    std::mt19937 random{9};
    for (int round = 0; round < 100; ++round) {
        up(kAll);
        for (std::uint32_t i = 0; i < 32; ++i) {
            const Gpa start{random() % kRamBytes};
            (void)report.add({{start, static_cast<std::uint32_t>(random() % 0x20000), true}});
            (void)inflate.add({{start, static_cast<std::uint32_t>(random() % 0x1000), false}});
        }
        device.publish(3, report);
        device.publish(0, inflate);
        if (round % 2 == 0) BOOST_REQUIRE(eventually([&] { return report.used_index() == 32; }));
        device.write(0x70, 0);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::virtio
