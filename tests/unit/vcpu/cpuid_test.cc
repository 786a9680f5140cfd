#include "vcpu/cpuid.h"

#include <boost/test/unit_test.hpp>

#include "guest.h"

namespace splitvisor::vcpu::test {
namespace {

kvm_cpuid_entry2 leaf(std::uint32_t function, std::uint32_t eax = 0, std::uint32_t ebx = 0, std::uint32_t ecx = 0,
                      std::uint32_t edx = 0)
{
    kvm_cpuid_entry2 entry{};
    entry.function = function;
    entry.eax = eax;
    entry.ebx = ebx;
    entry.ecx = ecx;
    entry.edx = edx;
    return entry;
}

kvm_cpuid_entry2 subleaf(std::uint32_t function, std::uint32_t index, std::uint32_t eax)
{
    auto entry = leaf(function, eax);
    entry.index = index;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    return entry;
}

std::vector<kvm_cpuid_entry2> intel_host()
{
    return {leaf(0, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69), leaf(1, 0x806f8, 0xff100800, 0x7ffefbbf, 0x1fcbfbff),
            subleaf(4, 0, 0xfc004121), subleaf(4, 2, 0xfc01c143), subleaf(4, 3, 0xfc1fc163), subleaf(4, 4, 0),
            subleaf(0xb, 0, 1), subleaf(0xb, 1, 7), leaf(0x40000000, 0x40000001), leaf(0x40000001, 0x01007efb)};
}

std::vector<kvm_cpuid_entry2> amd_host()
{
    return {leaf(0, 0x10, 0x68747541, 0x444d4163, 0x69746e65), leaf(1, 0x830f10, 0x09400800, 0xfed8320b, 0x178bfbff),
            leaf(0x80000001, 0, 0, 0x75c237ff, 0x2fd3fbff), leaf(0x80000008, 0x3030, 0, 0x703f), leaf(0x8000000a, 1, 8),
            subleaf(0x8000001d, 0, 0x4121), subleaf(0x8000001d, 3, 0x1c163), leaf(0x8000001e, 9, 0x104, 0x302)};
}

const kvm_cpuid_entry2& found(const std::vector<kvm_cpuid_entry2>& entries, std::uint32_t function, std::uint32_t index = 0)
{
    const auto* entry = find_leaf(entries, function, index);
    BOOST_REQUIRE_MESSAGE(entry != nullptr, "leaf " << function << " is missing");
    return *entry;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cpuid)

BOOST_AUTO_TEST_CASE(each_vcpu_has_its_own_apic_id_in_every_leaf_that_tells_it)
{
    for (const auto& host : {intel_host(), amd_host()}) {
        for (std::uint32_t id = 0; id < 6; ++id) {
            const auto entries = make_cpuid(host, VcpuId{id}, {6, true});
            BOOST_TEST(found(entries, 1).ebx >> 24 == id);
            BOOST_TEST((found(entries, 1).ebx & 0xffff) == 0x0800u);
            if (const auto* topology = find_leaf(entries, 0xb, 1)) BOOST_TEST(topology->edx == id);
            if (const auto* extended = find_leaf(entries, 0x8000001e)) BOOST_TEST(extended->eax == id);
        }
    }
}

BOOST_AUTO_TEST_CASE(the_guest_sees_a_hypervisor_and_no_virtualisation_of_its_own)
{
    const auto intel = make_cpuid(intel_host(), VcpuId{0}, {1, false});
    BOOST_TEST((found(intel, 1).ecx & (1u << 31)) != 0u);
    BOOST_TEST((found(intel, 1).ecx & (1u << 5)) == 0u);
    BOOST_TEST((found(intel, 1).ecx & (1u << 24)) == 0u);
    const auto amd = make_cpuid(amd_host(), VcpuId{0}, {1, true});
    BOOST_TEST((found(amd, 1).ecx & (1u << 24)) != 0u);
    BOOST_TEST((found(amd, 0x80000001).ecx & (1u << 2)) == 0u);
    BOOST_TEST(find_leaf(amd, 0x8000000a) == nullptr);
}

BOOST_AUTO_TEST_CASE(the_paravirtual_leaves_pass_unchanged)
{
    const auto entries = make_cpuid(intel_host(), VcpuId{1}, {2, true});
    BOOST_TEST(found(entries, 0x40000001).eax == 0x01007efbu);
    BOOST_TEST(found(entries, 0x40000000).eax == 0x40000001u);
}

BOOST_AUTO_TEST_CASE(intel_topology_is_one_package_of_single_threaded_cores)
{
    const auto entries = make_cpuid(intel_host(), VcpuId{2}, {6, true});
    const auto& threads = found(entries, 0xb, 0);
    const auto& cores = found(entries, 0xb, 1);
    const auto& end = found(entries, 0xb, 2);
    BOOST_TEST(threads.eax == 0u);
    BOOST_TEST(threads.ebx == 1u);
    BOOST_TEST(threads.ecx == 0x100u);
    BOOST_TEST(cores.eax == 3u);
    BOOST_TEST(cores.ebx == 6u);
    BOOST_TEST(cores.ecx == 0x201u);
    BOOST_TEST((end.ecx & 0xff00) == 0u);
    BOOST_TEST(find_leaf(entries, 0x1f, 1) != nullptr);
    BOOST_TEST(((found(entries, 1).ebx >> 16) & 0xff) == 8u);
    BOOST_TEST(found(entries, 4, 0).eax >> 26 == 7u);
    BOOST_TEST(((found(entries, 4, 0).eax >> 14) & 0xfff) == 0u);
    BOOST_TEST(((found(entries, 4, 3).eax >> 14) & 0xfff) == 5u);
    BOOST_TEST(found(entries, 4, 4).eax == 0u);
}

BOOST_AUTO_TEST_CASE(topology_leaves_above_the_highest_leaf_are_not_invented)
{
    const auto entries = make_cpuid(amd_host(), VcpuId{0}, {2, true});
    BOOST_TEST(find_leaf(entries, 0x1f, 0) == nullptr);
    BOOST_TEST(find_leaf(entries, 0xb, 1) != nullptr);
    const std::vector<kvm_cpuid_entry2> old_host{leaf(0, 5), leaf(1)};
    BOOST_TEST(find_leaf(make_cpuid(old_host, VcpuId{0}, {2, true}), 0xb, 0) == nullptr);
}

BOOST_AUTO_TEST_CASE(amd_topology_agrees_with_the_number_of_vcpus)
{
    const auto entries = make_cpuid(amd_host(), VcpuId{3}, {4, true});
    BOOST_TEST(found(entries, 0x80000008).ecx == 0x2003u);
    BOOST_TEST(found(entries, 0x80000008).eax == 0x3030u);
    BOOST_TEST((found(entries, 0x80000001).ecx & 2) == 2u);
    BOOST_TEST(found(entries, 0x8000001e).ebx == 3u);
    BOOST_TEST(found(entries, 0x8000001e).ecx == 0u);
    BOOST_TEST(((found(entries, 0x8000001d, 3).eax >> 14) & 0xfff) == 3u);
}

BOOST_AUTO_TEST_CASE(one_vcpu_has_no_threads_and_no_core_bits)
{
    const auto entries = make_cpuid(intel_host(), VcpuId{0}, {1, true});
    BOOST_TEST((found(entries, 1).edx & (1u << 28)) == 0u);
    BOOST_TEST(((found(entries, 1).ebx >> 16) & 0xff) == 1u);
    BOOST_TEST(found(entries, 0xb, 1).eax == 0u);
    BOOST_TEST(found(entries, 0xb, 1).ebx == 1u);
    BOOST_TEST(found(entries, 4, 0).eax >> 26 == 0u);
}

BOOST_AUTO_TEST_CASE(counts_that_do_not_fit_their_fields_saturate)
{
    const auto entries = make_cpuid(intel_host(), VcpuId{300}, {300, true});
    BOOST_TEST(found(entries, 1).ebx >> 24 == 255u);
    BOOST_TEST(found(entries, 0xb, 1).edx == 300u);
    BOOST_TEST(found(entries, 4, 0).eax >> 26 == 63u);
    BOOST_TEST(found(make_cpuid(amd_host(), VcpuId{300}, {300, true}), 0x80000008).ecx == 0x90ffu);
}

BOOST_AUTO_TEST_CASE(an_empty_host_list_gives_an_empty_guest_list)
{
    BOOST_TEST(make_cpuid({}, VcpuId{0}, {1, true}).empty());
}

BOOST_AUTO_TEST_CASE(kvm_accepts_what_the_policy_makes_of_this_host, *boost::unit_test::precondition(WithKvm{}))
{
    TinyGuest guest{{0xf4}, 3};
    BOOST_TEST(guest.vcpu(2).id().value() == 2u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vcpu::test
