#include "vmm/virtio/rng.h"

#include <boost/test/unit_test.hpp>

#include "tests/fakes/guest_driver.h"

namespace splitvisor::vmm::virtio {

using fakes::Buffer;
using fakes::DeviceUnderTest;
using fakes::DriverRing;
using fakes::eventually;
using fakes::GuestRam;

namespace {

constexpr Gpa kData{0x8000};

struct RngFixture {
    RngFixture() : device{make(), ram}
    {
        BOOST_REQUIRE(device.negotiate(kFeatureVersion1 | kFeatureIndirect));
        device.set_queue(0, ring.layout());
        device.driver_ok();
    }
    std::unique_ptr<VirtioDevice> make()
    {
        auto made = Rng::create();
        BOOST_REQUIRE(made.ok());
        rng = made->get();
        return std::move(*made);
    }
    GuestRam ram{256 * kKiB};
    Rng* rng = nullptr;
    DeviceUnderTest device;
    DriverRing ring{ram, Gpa{0x1000}, 64};
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(rng, RngFixture)

BOOST_AUTO_TEST_CASE(fills_the_writable_bytes_only)
{
    BOOST_REQUIRE(ring.add({{kData + 0x1000, 64, false}, {kData, 64, true}, {kData + 0x100, 64, true}}).has_value());
    const auto used = device.complete(0, ring);
    BOOST_REQUIRE(used.has_value());
    BOOST_TEST(used->length == 128u);
    BOOST_TEST((ram.get(kData, 64) != std::vector<std::byte>(64)));
    BOOST_TEST((ram.get(kData + 0x100, 64) != std::vector<std::byte>(64)));
    BOOST_TEST((ram.get(kData + 64, 64) == std::vector<std::byte>(64)));
    BOOST_TEST((ram.get(kData + 0x1000, 64) == std::vector<std::byte>(64)));
}

BOOST_AUTO_TEST_CASE(gives_at_most_a_page_for_a_request)
{
    BOOST_REQUIRE(ring.add({{kData, 128 * kKiB, true}}).has_value());
    const auto used = device.complete(0, ring);
    BOOST_REQUIRE(used.has_value());
    BOOST_TEST(used->length <= 4096u);
    BOOST_TEST((ram.get(kData + 4096, 4096) == std::vector<std::byte>(4096)));
}

BOOST_AUTO_TEST_CASE(answers_a_full_ring_in_several_batches)
{
    for (std::uint64_t i = 0; i < 64; ++i) BOOST_REQUIRE(ring.add({{kData + 16 * i, 16, true}}).has_value());
    device.publish(0, ring);
    BOOST_REQUIRE(eventually([&] { return ring.used_index() == 64; }));
    BOOST_TEST(rng->counters().bytes == 1024u);
}

BOOST_AUTO_TEST_CASE(gives_nothing_where_nothing_may_be_written)
{
    BOOST_REQUIRE(ring.add({{kData, 64, false}}).has_value());
    BOOST_TEST(device.complete(0, ring)->length == 0u);
    BOOST_TEST((ram.get(kData, 64) == std::vector<std::byte>(64)));
}

BOOST_AUTO_TEST_CASE(asks_for_reset_when_the_ring_breaks)
{
    ring.offer(64);
    device.publish(0, ring);
    BOOST_REQUIRE(eventually([&] { return device.needs_reset(); }));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::virtio
