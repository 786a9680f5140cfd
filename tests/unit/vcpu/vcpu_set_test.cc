#include "vcpu/vcpu_set.h"

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <thread>

#include "guest.h"

namespace splitvisor::vcpu::test {
namespace {

using namespace std::chrono_literals;

/// Counts port writes and holds them back while told to.
class Gate final : public ExitHandler {
  public:
    Next port_read(std::uint16_t, std::span<std::byte>) override { return Next::kContinue; }
    Next port_write(std::uint16_t port, std::span<const std::byte>) override
    {
        ++writes;
        while (hold) std::this_thread::sleep_for(1ms);
        return port == 0xf4 ? Next::kStop : Next::kContinue;
    }
    Next mmio_read(Gpa, std::span<std::byte>) override { return Next::kContinue; }
    Next mmio_write(Gpa, std::span<const std::byte>) override { return Next::kContinue; }
    std::atomic<std::uint64_t> writes{0};
    std::atomic<bool> hold{false};
};

template <typename Condition>
bool eventually(Condition condition)
{
    for (int i = 0; i < 5000; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(1ms);
    }
    return false;
}

const std::vector<std::uint8_t> kWriteForEver{0xe6, 0x10, 0xeb, 0xfc};  // out 10,al; jmp back

void no_end(VcpuId, const RunEnd& end) { BOOST_ERROR("the guest ended: " + end.detail); }

}  // namespace

BOOST_AUTO_TEST_SUITE(kvm_set, *boost::unit_test::precondition(WithKvm{}))

BOOST_AUTO_TEST_CASE(a_paused_set_does_nothing_and_a_resumed_one_goes_on)
{
    TinyGuest guest{kWriteForEver, 2};
    Gate gate;
    VcpuSet set{guest.take_vcpus(), gate, no_end};
    set.start();
    for (int round = 0; round < 20; ++round) {
        const auto before = gate.writes.load();
        BOOST_REQUIRE(eventually([&] { return gate.writes > before + 10; }));
        BOOST_REQUIRE(set.pause(2000).ok());
        const auto paused_at = gate.writes.load();
        std::this_thread::sleep_for(2ms);
        BOOST_TEST(gate.writes == paused_at);
        set.resume();
    }
    BOOST_TEST(set.stop(2000).ok());
    BOOST_TEST(set.exits()[static_cast<std::size_t>(ExitCause::kPortWrite)] == gate.writes);
}

BOOST_AUTO_TEST_CASE(pause_and_resume_back_to_back_lose_no_vcpu)
{
    TinyGuest guest{kWriteForEver, 2};
    Gate gate;
    VcpuSet set{guest.take_vcpus(), gate, no_end};
    set.start();
    for (int round = 0; round < 300; ++round) {
        BOOST_REQUIRE(set.pause(5000).ok());
        set.resume();
    }
    const auto before = gate.writes.load();
    BOOST_TEST(eventually([&] { return gate.writes > before + 10; }));
    BOOST_TEST(set.stop(2000).ok());
}

BOOST_AUTO_TEST_CASE(pause_has_a_deadline_and_names_the_vcpu_it_waits_for)
{
    TinyGuest guest{kWriteForEver};
    Gate gate;
    gate.hold = true;
    VcpuSet set{guest.take_vcpus(), gate, no_end};
    set.start();
    BOOST_REQUIRE(eventually([&] { return gate.writes == 1; }));
    const auto status = set.pause(20);
    BOOST_REQUIRE(!status.ok());
    BOOST_TEST((status.error().code() == ErrorCode::kTimeout));
    BOOST_TEST(status.error().message().find("vCPU 0") != std::string::npos);
    BOOST_TEST((set.stop(20).error().code() == ErrorCode::kTimeout));
    gate.hold = false;
    BOOST_TEST(set.stop(2000).ok());
}

BOOST_AUTO_TEST_CASE(a_vcpu_that_its_handler_stopped_never_enters_again)
{
    TinyGuest guest{{0xe6, 0xf4, 0xeb, 0xfc}};  // out f4,al; jmp back
    Gate gate;
    VcpuSet set{guest.take_vcpus(), gate, no_end};
    set.start();
    BOOST_REQUIRE(eventually([&] { return gate.writes == 1; }));
    BOOST_TEST(set.pause(2000).ok());
    set.resume();
    std::this_thread::sleep_for(10ms);
    BOOST_TEST(gate.writes == 1u);
    BOOST_TEST(set.stop(2000).ok());
}

BOOST_AUTO_TEST_CASE(the_end_of_a_guest_is_told_once_for_each_vcpu)
{
    TinyGuest guest{{0x0f, 0x0b}, 2};
    Gate gate;
    std::atomic<int> ends{0};
    VcpuSet set{guest.take_vcpus(), gate, [&](VcpuId, const RunEnd& end) {
                    if (end.kind == RunEnd::Kind::kTripleFault) ++ends;
                }};
    set.start();
    BOOST_TEST(eventually([&] { return ends == 2; }));
    set.resume();
    BOOST_TEST(set.stop(2000).ok());
    BOOST_TEST(ends == 2);
}

BOOST_AUTO_TEST_CASE(a_set_may_be_destroyed_running_paused_or_never_started)
{
    Gate gate;
    {
        TinyGuest guest{kWriteForEver, 2};
        VcpuSet set{guest.take_vcpus(), gate, no_end};
        set.start();
    }
    {
        TinyGuest guest{kWriteForEver, 2};
        VcpuSet set{guest.take_vcpus(), gate, no_end};
        set.start();
        BOOST_TEST(set.pause(2000).ok());
    }
    TinyGuest guest{kWriteForEver, 2};
    VcpuSet set{guest.take_vcpus(), gate, no_end};
    BOOST_TEST(set.pause(10).ok());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vcpu::test
