#include "vmm/machine.h"

#include <boost/test/unit_test.hpp>
#include <future>

#include "fixtures.h"
#include "guest_program.h"
#include "vmm/virtio_devices.h"

namespace splitvisor::vmm::test {
namespace {

using namespace std::chrono_literals;

/// True where a KVM can be opened; the tests that need one are skipped elsewhere, and Boost says so.
struct WithKvm {
    boost::test_tools::assertion_result operator()(boost::unit_test::test_unit_id) const
    {
        const auto system = vcpu::System::open();
        boost::test_tools::assertion_result answer{system.ok()};
        if (!system) answer.message() << system.error().message();
        return answer;
    }
};

/// A machine on local memory with everything but disks and network, whose guest obeys its console.
class ObedientMachine {
  public:
    explicit ObedientMachine(std::uint32_t vcpus = 1) : ObedientMachine{obedient_kernel(), vcpus} {}
    explicit ObedientMachine(const Image& kernel, std::uint32_t vcpus = 1)
    {
        config_.name = "test";
        config_.memory = ByteCount{16 * kMiB};
        config_.vcpus = vcpus;
        config_.kernel =
            folder_.write("kernel", {reinterpret_cast<const char*>(kernel.data()), kernel.size()});
        config_.run_dir = folder_.path();
        ram_ = take(make_local_ram(config_));
        hub_ = take(ConsoleHub::start({folder_ / "console.sock", folder_ / "console.log"}));
        console_.emplace(folder_ / "console.sock");
        machine_ = std::make_unique<Machine>(
            config_, take(vcpu::System::open()), *ram_, *hub_,
            [this](const GuestMemory& memory) { return make_virtio_devices(config_, memory, *ram_, {}); });
    }
    ~ObedientMachine()
    {
        if (!ending_.valid()) return;
        folder_.write("kernel", "none: a guest that only resets ends at the next");
        (void)machine_->resume();
        (void)console_->send("p");
    }
    ObedientMachine(const ObedientMachine&) = delete;
    ObedientMachine& operator=(const ObedientMachine&) = delete;

    void start()
    {
        ending_ = std::async(std::launch::async, [this] { return machine_->run(); });
    }
    /// Runs until it ends by itself.
    Ending end()
    {
        if (!ending_.valid()) start();
        if (ending_.wait_for(60s) != std::future_status::ready) BOOST_FAIL("the machine does not end");
        return ending_.get();
    }
    void expect_fresh_boot() { BOOST_REQUIRE_EQUAL(console_->line(), "0"); }
    void say(std::string_view letters) { BOOST_REQUIRE(console_->send(letters)); }

    /// What it boots from the next reset on.
    void replace_kernel(const Image& kernel)
    {
        folder_.write("fresh", {reinterpret_cast<const char*>(kernel.data()), kernel.size()});
        std::filesystem::rename(folder_ / "fresh", folder_ / "kernel");
    }

    Config& config() { return config_; }
    SocketClient& console() { return *console_; }
    Machine* operator->() { return machine_.get(); }
    [[nodiscard]] const TemporaryFolder& folder() const { return folder_; }
    /// What leaves the guest for the VMM: it stands still while the guest does.
    std::uint64_t exits()
    {
        VnodeStats stats;
        machine_->add_stats(stats);
        std::uint64_t sum = 0;
        for (const auto count : stats.exits) sum += count;
        return sum;
    }

  private:
    TemporaryFolder folder_;
    Config config_;
    std::unique_ptr<GuestRam> ram_;
    std::unique_ptr<ConsoleHub> hub_;
    std::optional<SocketClient> console_;
    std::unique_ptr<Machine> machine_;
    std::future<Ending> ending_;  // last: waits for the machine's thread
};

}  // namespace

BOOST_AUTO_TEST_SUITE(command_line)

BOOST_AUTO_TEST_CASE(has_what_the_machine_needs_in_front_of_what_is_wanted)
{
    BOOST_TEST(complete_command_line("") == "console=ttyS0 panic=1 no_timer_check pci=off");
    BOOST_TEST(complete_command_line("root=/dev/vda1 quiet") ==
               "console=ttyS0 panic=1 no_timer_check pci=off root=/dev/vda1 quiet");
    BOOST_TEST(complete_command_line("no_timer_check  panic=0 console=hvc0 ") ==
               "pci=off no_timer_check  panic=0 console=hvc0 ");
    BOOST_TEST(complete_command_line("xpanic=5 pcie=off panicky pci") ==
               "console=ttyS0 panic=1 no_timer_check xpanic=5 pcie=off panicky pci");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(machine, *boost::unit_test::precondition(WithKvm{}))

BOOST_AUTO_TEST_CASE(boots_talks_and_powers_off)
{
    ObedientMachine machine;
    BOOST_TEST((machine->state() == MachineState::kStarting));
    machine.start();
    machine.expect_fresh_boot();
    BOOST_TEST((machine->state() == MachineState::kRunning));
    machine.say("hello");
    BOOST_TEST(machine.console().until("hello") == "hello");
    machine.say("p");
    const auto ending = machine.end();
    BOOST_TEST((ending.status == ExitStatus::kPoweredOff));
    BOOST_TEST(ending.reason == "powered off");
    BOOST_TEST(machine->restarts() == 0u);
}

BOOST_AUTO_TEST_CASE(tells_a_triple_fault_and_does_not_hang)
{
    for (const std::uint32_t vcpus : {1u, 2u}) {
        ObedientMachine machine{vcpus};
        machine.start();
        machine.expect_fresh_boot();
        machine.say("t");
        const auto ending = machine.end();
        BOOST_TEST((ending.status == ExitStatus::kGuestCrashed));
        BOOST_TEST(ending.reason.starts_with("guest crashed: triple fault at rip=0x"), ending.reason);
        BOOST_TEST(!contains(ending.reason, "\n"));
    }
}

BOOST_AUTO_TEST_CASE(resets_with_fresh_memory)
{
    ObedientMachine machine;
    machine.start();
    machine.expect_fresh_boot();
    std::uint64_t resets = 0;
    for (const auto* way : {"r", "k", "r", "k"}) {
        machine.say(way);
        machine.expect_fresh_boot();
        BOOST_TEST(machine->restarts() == ++resets);
    }
    machine.say("p");
    BOOST_TEST((machine.end().status == ExitStatus::kPoweredOff));
}

BOOST_AUTO_TEST_CASE(resets_through_the_reset_vector)
{
    ObedientMachine machine{kernel_that_restarts_in_real_mode()};
    machine.start();
    BOOST_REQUIRE(eventually([&] { return machine->restarts() >= 2; }));
    machine.replace_kernel(obedient_kernel());
    machine.expect_fresh_boot();
    machine.say("p");
    BOOST_TEST((machine.end().status == ExitStatus::kPoweredOff));
}

BOOST_AUTO_TEST_CASE(presses_the_power_button)
{
    ObedientMachine machine;
    BOOST_TEST((machine->press_power_button().error().code() == ErrorCode::kUnavailable));
    machine.start();
    machine.expect_fresh_boot();
    machine.say("b");
    BOOST_TEST(machine.console().until("b") == "b");
    BOOST_TEST(machine->press_power_button().ok());
    BOOST_TEST((machine.end().status == ExitStatus::kPoweredOff));
}

BOOST_AUTO_TEST_CASE(stands_still_while_paused)
{
    ObedientMachine machine;
    BOOST_TEST(machine->pause().error().message() == "the machine is starting");
    BOOST_TEST(machine->resume().error().message() == "the machine is starting");
    machine.start();
    machine.expect_fresh_boot();
    BOOST_TEST(machine->resume().ok());
    for (int round = 0; round < 10; ++round) {
        BOOST_REQUIRE(machine->pause().ok());
        BOOST_TEST((machine->state() == MachineState::kPaused));
        BOOST_TEST(machine->pause().ok());
        BOOST_TEST(machine->press_power_button().error().message() == "the machine is paused");
        const auto exits = machine.exits();
        machine.say("x");
        std::this_thread::sleep_for(5ms);
        BOOST_TEST(machine.exits() == exits);
        BOOST_REQUIRE(machine->resume().ok());
        BOOST_TEST(machine.console().until("x") == "x");
    }
    machine.say("p");
    BOOST_TEST((machine.end().status == ExitStatus::kPoweredOff));
}

BOOST_AUTO_TEST_CASE(no_reset_happens_while_paused)
{
    // The guest resets as soon as it runs, so that pauses meet resets in every phase.
    ObedientMachine machine{make_pvh(Code{}.out(0x600, 0x01).stop().image())};
    machine.start();
    int paused = 0;
    const bool enough = eventually([&] {
        if (!machine->pause()) return false;
        const auto restarts = machine->restarts();
        std::this_thread::sleep_for(3ms);
        BOOST_REQUIRE((machine->state() == MachineState::kPaused));
        BOOST_REQUIRE_EQUAL(machine->restarts(), restarts);
        BOOST_REQUIRE(machine->resume().ok());
        return ++paused >= 30 && restarts >= 10;
    });
    BOOST_TEST(enough);
    machine.replace_kernel(obedient_kernel());
    machine.expect_fresh_boot();
    machine.say("p");
    BOOST_TEST((machine.end().status == ExitStatus::kPoweredOff));
}

BOOST_AUTO_TEST_CASE(counts_what_a_guest_asks_of_nobody)
{
    Code code;
    code.in(0x70).in(0x70).in(0xcf8).bytes({0xa1}).number(0xd8000000);
    code.out(0x600, 0x34).stop();
    ObedientMachine machine{make_pvh(code.image())};
    BOOST_TEST((machine.end().status == ExitStatus::kPoweredOff));
    VnodeStats stats;
    machine->add_stats(stats);
    BOOST_TEST(stats.bus.unclaimed_ports == 3u);
    BOOST_TEST(stats.bus.unclaimed_memory == 1u);
    BOOST_REQUIRE(stats.devices.size() == 2u);
    BOOST_TEST(stats.devices[0].kind == "balloon");
    BOOST_TEST(stats.devices[1].kind == "entropy");
}

BOOST_AUTO_TEST_CASE(a_flood_on_the_console_does_not_keep_it_from_pausing)
{
    Code code;
    code.out(0x3f8, 'f').in(0x3fd).bytes({0xa8, 0x01}).jump_back(0x74, 0).bytes({0x0f, 0x0b});
    ObedientMachine machine{make_pvh(code.image())};
    machine.start();
    BOOST_REQUIRE(machine.console().bytes(10'000).size() >= 10'000u);
    BOOST_REQUIRE(machine->pause().ok());
    const auto exits = machine.exits();
    std::this_thread::sleep_for(5ms);
    BOOST_TEST(machine.exits() == exits);
    BOOST_REQUIRE(machine->resume().ok());
    machine.say("crash");
    BOOST_TEST((machine.end().status == ExitStatus::kGuestCrashed));
}

BOOST_AUTO_TEST_CASE(tells_what_kept_it_from_starting)
{
    const auto failure = [](const Image& kernel, auto change) {
        ObedientMachine machine{kernel};
        change(machine.config());
        const auto ending = machine.end();
        BOOST_TEST((ending.status == ExitStatus::kStartFailed));
        BOOST_TEST(!contains(ending.reason, "\n"));
        BOOST_TEST((machine->state() == MachineState::kStarting));
        BOOST_TEST(!machine->pause().ok());
        VnodeStats stats;
        machine->add_stats(stats);
        return ending.reason;
    };
    const auto same = [](Config&) {};
    BOOST_TEST(failure({}, same) == "kernel: neither a bzImage nor an ELF file");
    BOOST_TEST(failure(bytes_of_text("#!/bin/sh\n"), same) == "kernel: neither a bzImage nor an ELF file");
    BOOST_TEST(failure(obedient_kernel(), [](Config& config) { config.kernel = "/absent/kernel"; }) ==
               "kernel: /absent/kernel: No such file or directory");
    BOOST_TEST(failure(obedient_kernel(), [](Config& config) { config.kernel = "/tmp"; }) ==
               "kernel: /tmp: is a directory");
    BOOST_TEST(failure(obedient_kernel(), [](Config& config) { config.initrd = "/absent/initrd"; }) ==
               "initrd: /absent/initrd: No such file or directory");
    BOOST_TEST(
        contains(failure(obedient_kernel(), [](Config& config) { config.command_line.assign(3000, 'c'); }),
                 "this kernel takes 2047"));
    BOOST_TEST(contains(failure(obedient_kernel(),
                                [](Config& config) {
                                    config.nets.push_back({"bad/name", {}});
                                }),
                        "net bad/name"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
