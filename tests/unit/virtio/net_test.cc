#include "vmm/virtio/net.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/socket.h>

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

constexpr Gpa kTransmitData{0x10000};
constexpr Gpa kReceiveData{0x80000};
constexpr std::uint32_t kBufferBytes = 2048;
constexpr MacAddress kMac{0x52, 0x54, 0, 1, 2, 3};

/// The network card on one end of a pair of message sockets, the test on the other: the world outside.
struct NetFixture {
    NetFixture() : device{make(), ram} { up(); }

    std::unique_ptr<VirtioDevice> make()
    {
        int fds[2];
        // Of all sockets that keep messages apart these hold the most of them: a whole ring's.
        BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
        world = Fd{fds[1]};
        tap_end = Fd{::fcntl(fds[0], F_DUPFD_CLOEXEC, 0)};
        auto made = Net::create(TapDevice{Fd{fds[0]}}, kMac);
        BOOST_REQUIRE(made.ok());
        net = made->get();
        return std::move(*made);
    }
    void up(std::uint64_t features = kFeatureVersion1 | kFeatureEventIndex | kFeatureIndirect, std::uint16_t buffers = 16)
    {
        const bool event_index = (features & kFeatureEventIndex) != 0;
        // Until it is reset the device may use the rings that are there.
        device.write(0x70, 0);
        ram.fill(Gpa{0x1000}, 0x4000, std::byte{0});
        transmit = DriverRing{ram, Gpa{0x1000}, 16, event_index};
        receive = DriverRing{ram, Gpa{0x2000}, buffers, event_index};
        BOOST_REQUIRE(device.negotiate(features));
        device.set_queue(0, receive.layout());
        device.set_queue(1, transmit.layout());
        device.driver_ok();
    }
    void offer_buffers(int count)
    {
        for (int i = 0; i < count; ++i, ++offered) {
            BOOST_REQUIRE(receive.add({{kReceiveData + kBufferBytes * (offered % 16), kBufferBytes, true}}).has_value());
        }
        device.publish(0, receive);
    }
    /// A frame from the world, its payload numbered; false where the tap is full.
    bool arrive(std::uint32_t number, std::size_t bytes = 100)
    {
        std::vector<std::byte> frame(kNetHeaderBytes + bytes, std::byte{0x11});
        if (bytes >= 18) store(std::span{frame}, kNetHeaderBytes + 14, number);
        return ::send(world.get(), frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
    }
    std::optional<fakes::Used> received()
    {
        std::optional<fakes::Used> used;
        (void)eventually([&] { return (used = receive.take_used()).has_value(); });
        return used;
    }
    std::optional<std::uint16_t> put_transmit(std::uint32_t number, std::uint32_t bytes = 60)
    {
        ram.fill(kTransmitData, kNetHeaderBytes, std::byte{0xff});
        ram.put(kTransmitData + kNetHeaderBytes + 14, number);
        return transmit.add({{kTransmitData, static_cast<std::uint32_t>(kNetHeaderBytes + bytes), false}});
    }
    /// Makes the tap as small as the kernel lets it be: how many frames a socket takes differs between
    /// kernels, and may be more than a ring holds. Returns how many of this length fit.
    std::uint64_t shrink_tap(std::size_t bytes)
    {
        const int least = 1;
        BOOST_REQUIRE(::setsockopt(tap_end.get(), SOL_SOCKET, SO_SNDBUF, &least, sizeof least) == 0);
        const std::vector<std::byte> frame(bytes);
        std::uint64_t fit = 0;
        while (::send(tap_end.get(), frame.data(), bytes, 0) == static_cast<ssize_t>(bytes)) ++fit;
        for (std::uint64_t i = 0; i < fit; ++i) BOOST_REQUIRE(leave().size() == bytes);
        return fit;
    }
    std::vector<std::byte> leave()
    {
        std::vector<std::byte> frame(70'000);
        ssize_t bytes = -1;
        (void)eventually([&] { return (bytes = ::recv(world.get(), frame.data(), frame.size(), 0)) >= 0; });
        frame.resize(bytes < 0 ? 0 : static_cast<std::size_t>(bytes));
        return frame;
    }

    GuestRam ram{kMiB};
    Fd world;
    Fd tap_end;
    Net* net = nullptr;
    DeviceUnderTest device;
    DriverRing transmit{ram, Gpa{0x1000}, 16, true};
    DriverRing receive{ram, Gpa{0x2000}, 16, true};
    std::uint64_t offered = 0;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(net, NetFixture)

BOOST_AUTO_TEST_CASE(announces_its_address_and_link)
{
    BOOST_TEST(device.read(0x100) == 0x01005452u);
    BOOST_TEST(device.read(0x104) == 0x00010302u);
    BOOST_TEST((device.offered() & (1u << 5 | 1u << 16)) == (1u << 5 | 1u << 16));
}

BOOST_AUTO_TEST_CASE(delivers_a_frame_behind_a_header_of_its_own)
{
    offer_buffers(1);
    BOOST_REQUIRE(arrive(77));
    const auto used = received();
    BOOST_REQUIRE(used.has_value());
    BOOST_TEST(used->length == 112u);
    BOOST_TEST(ram.get<std::uint64_t>(kReceiveData) == 0u);
    BOOST_TEST(ram.get<std::uint16_t>(kReceiveData + 10) == 1u);
    BOOST_TEST(ram.get<std::uint32_t>(kReceiveData + 26) == 77u);
    BOOST_TEST(net->counters().received == 1u);
}

BOOST_AUTO_TEST_CASE(sends_a_frame_without_the_offloads_that_the_driver_asked_for)
{
    BOOST_REQUIRE(put_transmit(5).has_value());
    BOOST_REQUIRE(device.complete(1, transmit).has_value());
    const auto frame = leave();
    BOOST_REQUIRE(frame.size() == 72u);
    BOOST_TEST(load<std::uint64_t>(frame) == 0u);
    BOOST_TEST(load<std::uint32_t>(frame, 26) == 5u);
}

BOOST_AUTO_TEST_CASE(gathers_a_frame_from_many_pieces)
{
    ram.fill(kTransmitData, 200, std::byte{0x42});
    std::vector<Buffer> pieces;
    for (std::uint64_t i = 0; i < 90; ++i) pieces.push_back({kTransmitData + i, 1, false});
    BOOST_REQUIRE(transmit.add_indirect(Gpa{0x8000}, pieces).has_value());
    BOOST_REQUIRE(device.complete(1, transmit).has_value());
    BOOST_TEST(leave().size() == 90u);
}

BOOST_AUTO_TEST_CASE(drops_frames_that_are_too_short_or_too_long)
{
    for (const std::uint32_t bytes : {1u, 11u, 12u, 25u}) {
        BOOST_REQUIRE(transmit.add({{kTransmitData, bytes, false}}).has_value());
        BOOST_REQUIRE(device.complete(1, transmit).has_value());
    }
    const std::vector<Buffer> huge(200, Buffer{Gpa{0}, kMiB, false});
    BOOST_REQUIRE(transmit.add_indirect(Gpa{0x8000}, huge).has_value());
    BOOST_REQUIRE(device.complete(1, transmit).has_value());
    BOOST_REQUIRE(transmit.add({{kTransmitData, 64, true}}).has_value());
    BOOST_REQUIRE(device.complete(1, transmit).has_value());
    BOOST_TEST(net->counters().send_dropped == 6u);
    BOOST_REQUIRE(put_transmit(1).has_value());
    BOOST_REQUIRE(device.complete(1, transmit).has_value());
    BOOST_TEST(leave().size() == 72u);
}

BOOST_AUTO_TEST_CASE(drops_a_frame_that_does_not_fit_and_keeps_the_buffer)
{
    offer_buffers(1);
    BOOST_REQUIRE(arrive(1, 5000));
    BOOST_REQUIRE(arrive(2, 3));
    BOOST_REQUIRE(arrive(3));
    BOOST_REQUIRE(received().has_value());
    BOOST_TEST(ram.get<std::uint32_t>(kReceiveData + 26) == 3u);
    BOOST_TEST(net->counters().receive_dropped == 2u);
}

BOOST_AUTO_TEST_CASE(treats_a_buffer_that_cannot_be_written_as_too_small)
{
    BOOST_REQUIRE(receive.add({{kReceiveData, kBufferBytes, false}}).has_value());
    device.publish(0, receive);
    BOOST_REQUIRE(arrive(1));
    BOOST_REQUIRE(eventually([&] { return net->counters().receive_dropped == 1; }));
    BOOST_TEST(!receive.take_used().has_value());
}

BOOST_AUTO_TEST_CASE(resumes_receiving_after_ring_and_tap_were_both_full)
{
    for (const auto features : {kFeatureVersion1, kFeatureVersion1 | kFeatureEventIndex}) {
        up(features);
        std::uint32_t number = 0;
        // No buffers: the tap fills up, and nothing may be taken from it.
        while (arrive(number)) ++number;
        BOOST_REQUIRE(number > 3u);
        std::uint32_t next = 0;
        while (next < number) {
            offer_buffers(2);
            for (int i = 0; i < 2 && next < number; ++i, ++next) {
                const auto used = received();
                BOOST_REQUIRE(used.has_value());
                BOOST_TEST(used->length == 112u);
            }
            if (number < 40) number += arrive(number);
        }
        BOOST_TEST(net->counters().receive_dropped == 0u);
    }
}

BOOST_AUTO_TEST_CASE(asks_for_buffers_after_a_ring_full_of_frames_came_at_once)
{
    constexpr int kRing = kMaxQueueSize;
    for (const auto event_index : {kFeatureEventIndex, std::uint64_t{0}}) {
        up(kFeatureVersion1 | event_index, kRing);
        for (int i = 0; i < kRing; ++i) BOOST_REQUIRE(arrive(i, 20));
        offer_buffers(kRing);
        for (int i = 0; i < kRing; ++i) BOOST_REQUIRE(received().has_value());
        BOOST_REQUIRE(arrive(kRing, 20));
        offer_buffers(kRing);
        BOOST_TEST(received().has_value());
    }
}

BOOST_AUTO_TEST_CASE(resumes_sending_after_the_tap_was_full)
{
    const auto fit = shrink_tap(64);
    BOOST_REQUIRE(fit > 0u);
    BOOST_REQUIRE(fit < 16u);
    for (std::uint32_t i = 0; i < 16; ++i) {
        BOOST_REQUIRE(transmit.add({{kTransmitData, 64, false}}).has_value());
    }
    device.publish(1, transmit);
    BOOST_REQUIRE(eventually([&] { return net->counters().sent == fit; }));
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    BOOST_TEST(net->counters().sent == fit);
    for (int i = 0; i < 16; ++i) BOOST_REQUIRE(leave().size() == 64u);
    BOOST_REQUIRE(eventually([&] { return transmit.used_index() == 16; }));
    BOOST_TEST(net->counters().send_dropped == 0u);
}

BOOST_AUTO_TEST_CASE(receives_while_sending_is_blocked_and_the_reverse)
{
    const auto fit = shrink_tap(64);
    BOOST_REQUIRE(fit < 16u);
    for (int i = 0; i < 16; ++i) BOOST_REQUIRE(transmit.add({{kTransmitData, 64, false}}).has_value());
    device.publish(1, transmit);
    BOOST_REQUIRE(eventually([&] { return net->counters().sent == fit; }));
    offer_buffers(4);
    BOOST_REQUIRE(arrive(1));
    BOOST_REQUIRE(received().has_value());
    BOOST_TEST(net->counters().sent == fit);
    for (int i = 0; i < 16; ++i) BOOST_REQUIRE(leave().size() == 64u);
    BOOST_REQUIRE(eventually([&] { return transmit.used_index() == 16; }));
}

BOOST_AUTO_TEST_CASE(lets_no_driver_poison_its_ring_for_the_next)
{
    receive.available_index(1000);
    device.notify(0);
    BOOST_REQUIRE(eventually([&] { return device.needs_reset(); }));
    BOOST_REQUIRE(arrive(1));
    up();
    BOOST_TEST(!device.needs_reset());
    offer_buffers(1);
    BOOST_REQUIRE(received().has_value());
    transmit.offer(99);
    device.publish(1, transmit);
    BOOST_REQUIRE(eventually([&] { return device.needs_reset(); }));
}

BOOST_AUTO_TEST_CASE(returns_malformed_buffers_and_goes_on)
{
    // Into a device window, into the hole, looping.
    const std::pair<Gpa, std::uint16_t> pieces[] = {
        {DeviceUnderTest::kWindow, fakes::kDescWrite}, {kHoleStart, fakes::kDescWrite}, {kReceiveData, fakes::kDescNext}};
    for (const auto& [address, flags] : pieces) {
        receive.descriptor(15, address, 2048, flags, 15);
        receive.offer(15);
        device.publish(0, receive);
        BOOST_REQUIRE(received().has_value());
    }
    BOOST_TEST(net->counters().bad_chains == 3u);
    offer_buffers(1);
    BOOST_REQUIRE(arrive(9));
    BOOST_TEST(received()->length == 112u);
}

BOOST_AUTO_TEST_CASE(stays_calm_when_the_tap_goes_away)
{
    offer_buffers(2);
    world.reset();
    for (int i = 0; i < 3; ++i) {
        BOOST_REQUIRE(put_transmit(1).has_value());
        BOOST_REQUIRE(device.complete(1, transmit).has_value());
    }
    BOOST_TEST(net->counters().send_dropped == 3u);
    BOOST_TEST(!device.needs_reset());
    device.write(0x70, 0);
}

BOOST_AUTO_TEST_CASE(survives_resets_under_traffic)
{
    std::atomic<bool> stop{false};
    std::thread traffic{[&] {
        std::vector<std::byte> frame(200);
        while (!stop) {
            (void)::send(world.get(), frame.data(), frame.size(), 0);
            (void)::recv(world.get(), frame.data(), frame.size(), 0);
        }
    }};
    for (int round = 0; round < 300; ++round) {
        up();
        offer_buffers(8);
        for (int i = 0; i < 8; ++i) BOOST_REQUIRE(put_transmit(1).has_value());
        device.publish(1, transmit);
        if (round % 4 == 0) BOOST_REQUIRE(eventually([&] { return receive.used_index() > 0; }));
        device.write(0x70, 0);
        const auto used = receive.used_index();
        BOOST_REQUIRE(receive.used_index() == used);
    }
    stop = true;
    traffic.join();
    BOOST_TEST(net->counters().received > 0u);
}

BOOST_AUTO_TEST_CASE(opens_a_tap_only_by_a_sensible_name)
{
    BOOST_TEST((TapDevice::open("").error().code() == ErrorCode::kInvalid));
    BOOST_TEST((TapDevice::open("a-name-of-16-char").error().code() == ErrorCode::kInvalid));
    BOOST_TEST((TapDevice::open("sv-mistyped").error().code() == ErrorCode::kNotFound));
    BOOST_TEST(::if_nametoindex("sv-mistyped") == 0u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::virtio
