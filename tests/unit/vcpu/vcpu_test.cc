#include "vcpu/vcpu.h"

#include <sys/mman.h>

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <csignal>
#include <thread>

#include "guest.h"

namespace splitvisor::vcpu::test {

using Events = std::vector<std::string>;

BOOST_AUTO_TEST_SUITE(kvm, *boost::unit_test::precondition(WithKvm{}))

BOOST_AUTO_TEST_CASE(a_missing_kvm_is_one_line_that_says_what_to_do)
{
    const auto system = System::open("/dev/no-such-kvm");
    BOOST_REQUIRE(!system.ok());
    BOOST_TEST(system.error().message().find("module") != std::string::npos);
    BOOST_TEST(system.error().message().find('\n') == std::string::npos);
}

BOOST_AUTO_TEST_CASE(something_else_than_kvm_is_refused)
{
    BOOST_TEST(!System::open("/dev/null").ok());
}

BOOST_AUTO_TEST_CASE(port_accesses_of_every_width_reach_the_handler)
{
    // mov al,5a; out 10,al; in al,11; out 12,al; mov dx,3f8; mov eax,44332211; out dx,ax; out dx,eax; in eax,dx; out f4,al
    TinyGuest guest{{0xb0, 0x5a, 0xe6, 0x10, 0xe4, 0x11, 0xe6, 0x12, 0x66, 0xba, 0xf8, 0x03, 0xb8, 0x11, 0x22, 0x33, 0x44,
                     0x66, 0xef, 0xef, 0xed, 0xe6, 0xf4}};
    Recorder recorder;
    const auto end = guest.vcpu().run(recorder);
    BOOST_TEST((end.kind == RunEnd::Kind::kStopped));
    const Events wanted{"out 10 5a",   "in 11 a0",           "out 12 a0", "out 3f8 11 22", "out 3f8 11 22 33 44",
                        "in 3f8 a0 a1 a2 a3", "out f4 a0"};
    BOOST_TEST(recorder.events() == wanted, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_string_write_arrives_element_by_element)
{
    // mov esi,18000; mov ecx,3; mov dx,20; rep outsb; out f4,al
    TinyGuest guest{{0xbe, 0x00, 0x80, 0x01, 0x00, 0xb9, 0x03, 0x00, 0x00, 0x00, 0x66, 0xba, 0x20, 0x00, 0xf3, 0x6e, 0xe6, 0xf4}};
    std::memcpy(guest.ram() + 0x18000, "abc", 3);
    Recorder recorder;
    const auto end = guest.vcpu().run(recorder);
    BOOST_TEST((end.kind == RunEnd::Kind::kStopped));
    const Events wanted{"out 20 61", "out 20 62", "out 20 63", "out f4 00"};
    BOOST_TEST(recorder.events() == wanted, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(accesses_outside_ram_reach_the_handler_and_return_its_bytes)
{
    // mov ebx,d0000000; mov eax,[rbx]; mov [rbx+4],ax; out f4,al
    TinyGuest guest{{0xbb, 0x00, 0x00, 0x00, 0xd0, 0x8b, 0x03, 0x66, 0x89, 0x43, 0x04, 0xe6, 0xf4}};
    Recorder recorder;
    const auto end = guest.vcpu().run(recorder);
    BOOST_TEST((end.kind == RunEnd::Kind::kStopped));
    const Events wanted{"load d0000000 a0 a1 a2 a3", "store d0000004 a0 a1", "out f4 a0"};
    BOOST_TEST(recorder.events() == wanted, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_stopped_guest_goes_on_behind_the_access)
{
    // out f4,al; mov al,7; out 10,al; out f4,al
    TinyGuest guest{{0xe6, 0xf4, 0xb0, 0x07, 0xe6, 0x10, 0xe6, 0xf4}};
    Recorder recorder;
    BOOST_TEST((guest.vcpu().run(recorder).kind == RunEnd::Kind::kStopped));
    BOOST_TEST((guest.vcpu().run(recorder).kind == RunEnd::Kind::kStopped));
    const Events wanted{"out f4 00", "out 10 07", "out f4 07"};
    BOOST_TEST(recorder.events() == wanted, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(complete_access_moves_the_instruction_pointer_without_running)
{
    TinyGuest guest{{0xe4, 0xf4, 0xb0, 0x07, 0xe6, 0x10}};  // in al,f4; mov al,7; out 10,al
    Recorder recorder;
    BOOST_TEST((guest.vcpu().run(recorder).kind == RunEnd::Kind::kStopped));
    guest.vcpu().complete_access();
    const auto regs = TinyGuest::take(guest.vcpu().regs());
    BOOST_TEST(regs.rip == TinyGuest::kCode.value() + 2);
    BOOST_TEST((regs.rax & 0xff) == 0xa0u);
    BOOST_TEST(recorder.events().size() == 1u);
}

BOOST_AUTO_TEST_CASE(a_kick_before_the_run_is_not_lost_and_survives_complete_access)
{
    TinyGuest guest{{0xeb, 0xfe}};  // jmp .
    Recorder recorder;
    guest.vcpu().kick();
    guest.vcpu().complete_access();
    BOOST_TEST((guest.vcpu().run(recorder).kind == RunEnd::Kind::kKicked));
}

BOOST_AUTO_TEST_CASE(kicks_from_another_thread_end_an_endless_loop_every_time)
{
    TinyGuest guest{{0xeb, 0xfe}};
    Recorder recorder;
    std::atomic<int> kicked{0};
    std::thread runner{[&] {
        for (int i = 0; i < 200; ++i) {
            if (guest.vcpu().run(recorder).kind == RunEnd::Kind::kKicked) ++kicked;
        }
    }};
    // A kick may fall together with the one before; so kick until the runner has had its 200.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (kicked < 200 && std::chrono::steady_clock::now() < deadline) {
        const int before = kicked;
        guest.vcpu().kick();
        const auto answered_by = std::chrono::steady_clock::now() + std::chrono::seconds{5};
        while (kicked == before && std::chrono::steady_clock::now() < answered_by) std::this_thread::yield();
        BOOST_REQUIRE_MESSAGE(kicked > before, "a kick was lost");
    }
    runner.join();
    BOOST_TEST(kicked == 200);
    BOOST_TEST(guest.vcpu().exits()[static_cast<std::size_t>(ExitCause::kInterrupted)] >= 200u);
}

BOOST_AUTO_TEST_CASE(a_foreign_signal_does_not_end_the_run)
{
    TinyGuest guest{{0xe6, 0x10, 0xeb, 0xfc}};  // out 10,al; jmp back
    struct Counter final : ExitHandler {
        Next port_read(std::uint16_t, std::span<std::byte>) override { return Next::kStop; }
        Next port_write(std::uint16_t, std::span<const std::byte>) override
        {
            if (++writes % 10 == 0) ::raise(SIGRTMIN);
            return writes == 100 ? Next::kStop : Next::kContinue;
        }
        Next mmio_read(Gpa, std::span<std::byte>) override { return Next::kStop; }
        Next mmio_write(Gpa, std::span<const std::byte>) override { return Next::kStop; }
        int writes = 0;
    } counter;
    BOOST_TEST((guest.vcpu().run(counter).kind == RunEnd::Kind::kStopped));
    BOOST_TEST(counter.writes == 100);
}

BOOST_AUTO_TEST_CASE(a_triple_fault_is_told_from_a_stop)
{
    TinyGuest guest{{0x0f, 0x0b}};  // ud2, with no interrupt table
    Recorder recorder;
    const auto end = guest.vcpu().run(recorder);
    BOOST_TEST((end.kind == RunEnd::Kind::kTripleFault));
    BOOST_TEST(end.detail.find("triple fault at rip=0x") == 0u);
    BOOST_TEST(guest.vcpu().exits()[static_cast<std::size_t>(ExitCause::kShutdown)] == 1u);
}

BOOST_AUTO_TEST_CASE(a_halt_without_irqchip_is_reported_as_unexpected)
{
    TinyGuest guest{{0xf4}};
    Recorder recorder;
    const auto end = guest.vcpu().run(recorder);
    BOOST_TEST((end.kind == RunEnd::Kind::kBroken));
    BOOST_TEST(end.detail.find("unexpected KVM exit 5") == 0u);
}

BOOST_AUTO_TEST_CASE(memory_that_cannot_be_brought_in_ends_the_guest_with_a_reason)
{
    // mov eax,[101000]; out f4,al
    TinyGuest guest{{0x8b, 0x04, 0x25, 0x00, 0x10, 0x10, 0x00, 0xe6, 0xf4}};
    // In user mode: a KVM that emulates ring 0 answers there with an MMIO exit instead.
    EntryState entry;
    entry.privilege = 3;
    entry.instruction = TinyGuest::kCode.value();
    entry.page_tables = Gpa{0x1000};
    TinyGuest::check(enter_at(guest.vcpu(), entry));
    BOOST_REQUIRE(::mprotect(guest.ram() + 0x101000, kPageBytes, PROT_NONE) == 0);
    Recorder recorder;
    const auto end = guest.vcpu().run(recorder);
    BOOST_TEST((end.kind == RunEnd::Kind::kBroken));
    BOOST_TEST(end.detail.find("cannot be brought in") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(user_mode_guests_may_use_ports)
{
    TinyGuest guest{{0xb0, 0x5a, 0xe6, 0xf4}};
    EntryState entry;
    entry.privilege = 3;
    entry.instruction = TinyGuest::kCode.value();
    entry.stack = 0x20000;
    entry.page_tables = Gpa{0x1000};
    TinyGuest::check(enter_at(guest.vcpu(), entry));
    Recorder recorder;
    BOOST_TEST((guest.vcpu().run(recorder).kind == RunEnd::Kind::kStopped));
    const Events wanted{"out f4 5a"};
    BOOST_TEST(recorder.events() == wanted, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_doorbell_signals_without_an_exit)
{
    // mov ebx,d0000050; mov dword [rbx],1; mov dword [rbx],2; out f4,al
    TinyGuest guest{{0xbb, 0x50, 0x00, 0x00, 0xd0, 0xc7, 0x03, 1, 0, 0, 0, 0xc7, 0x03, 2, 0, 0, 0, 0xe6, 0xf4}};
    const auto bell = TinyGuest::take(EventFd::create());
    TinyGuest::check(guest.vm().add_doorbell(Gpa{0xd0000050}, 1, bell));
    Recorder recorder;
    BOOST_TEST((guest.vcpu().run(recorder).kind == RunEnd::Kind::kStopped));
    BOOST_TEST(bell.drain());
    const Events wanted{"store d0000050 02 00 00 00", "out f4 00"};
    BOOST_TEST(recorder.events() == wanted, boost::test_tools::per_element());
    TinyGuest::check(guest.vm().remove_doorbell(Gpa{0xd0000050}, 1, bell));
    BOOST_TEST(!guest.vm().remove_doorbell(Gpa{0xd0000050}, 1, bell).ok());
}

BOOST_AUTO_TEST_CASE(machine_setup_in_the_documented_order_is_accepted)
{
    TinyGuest guest{{0xf4}, 2, true};
    TinyGuest::check(guest.vcpu(0).wire_local_interrupts());
    TinyGuest::check(guest.vcpu(1).reset_fpu());
    const auto line = TinyGuest::take(EventFd::create());
    TinyGuest::check(guest.vm().attach_interrupt(line, 4));
    BOOST_TEST(!guest.vm().create_irqchip().ok());
}

BOOST_AUTO_TEST_CASE(an_unknown_msr_is_an_error_that_names_it)
{
    TinyGuest guest{{0xf4}};
    kvm_msr_entry entry{};
    entry.index = 0xdeadbeef;
    entry.data = 1;
    const auto status = guest.vcpu().set_msrs(std::span{&entry, 1});
    BOOST_REQUIRE(!status.ok());
    BOOST_TEST(status.error().message().find("0xdeadbeef") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vcpu::test
