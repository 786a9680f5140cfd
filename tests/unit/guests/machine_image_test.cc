#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <optional>

#include "base/bytes.h"
#include "base/mapping.h"
#include "guests/ring3/catalogue.h"
#include "guests/ring3/machine_image.h"

using namespace splitvisor;
using namespace splitvisor::ring3;

namespace {

/// Walks the guest's tables as the processor does: Intel SDM 3, 4.5.4, 2 MiB pages.
std::optional<std::uint64_t> translate(std::span<const std::byte> ram, std::uint64_t root, std::uint64_t address)
{
    constexpr std::uint64_t kNeeded = 7;  // present, writable, user
    constexpr std::uint64_t kFrame = 0x000ffffffffff000;
    std::uint64_t entry = root | kNeeded;
    for (const unsigned shift : {39u, 30u, 21u}) {
        entry = load<std::uint64_t>(ram, (entry & kFrame) + (address >> shift) % 512 * 8);
        if ((entry & kNeeded) != kNeeded) return std::nullopt;
    }
    if ((entry & 0x80) == 0) return std::nullopt;
    return (entry & kFrame) | (address & 0x1fffff);
}

Mapping build(const Parameters& parameters)
{
    auto ram = Mapping::anonymous(ByteCount{kArena + parameters.arena_bytes});
    BOOST_REQUIRE(ram.ok());
    build_machine(ram->bytes(), parameters);
    return std::move(*ram);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(machine_image)

BOOST_AUTO_TEST_CASE(all_of_ram_and_nothing_else_is_mapped_to_itself)
{
    for (const auto memory : {16 * kMiB, 18 * kMiB + kPageBytes, 1 * kGiB, 3 * kGiB}) {
        const auto parameters = make_parameters(workloads().front(), ByteCount{memory}, 1, 1);
        BOOST_REQUIRE(parameters.ok());
        const auto ram = build(*parameters);
        const auto root = entry_point(VcpuId{0}).page_tables.value();
        for (std::uint64_t address = 0; address < memory; address += 64 * kKiB) {
            BOOST_REQUIRE(translate(ram.bytes(), root, address) == address);
        }
        BOOST_TEST((translate(ram.bytes(), root, memory - 1) == memory - 1));
        const auto end = (memory + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB);
        BOOST_TEST(!translate(ram.bytes(), root, end).has_value());
    }
}

BOOST_AUTO_TEST_CASE(code_and_parameters_are_in_place_and_the_arena_is_untouched)
{
    const auto parameters = make_parameters(*find_workload("kv"), ByteCount{32 * kMiB}, 2, 42);
    BOOST_REQUIRE(parameters.ok());
    const auto ram = build(*parameters);
    const auto code = guest_image();
    BOOST_TEST(code.size() > 1000u);
    const auto start = entry_point(VcpuId{1}).instruction;
    BOOST_TEST(std::equal(code.begin(), code.end(), ram.bytes().begin() + static_cast<std::ptrdiff_t>(start)));
    BOOST_TEST(load<Parameters>(ram.bytes(), kParameters).seed == 42u);
    const auto arena = arena_of(ram.bytes());
    BOOST_TEST(arena.size() == parameters->arena_bytes);
    BOOST_TEST((std::all_of(arena.begin(), arena.end(), [](std::byte b) { return b == std::byte{0}; })));
}

BOOST_AUTO_TEST_CASE(stacks_are_apart_and_aligned)
{
    const auto first = entry_point(VcpuId{0});
    const auto second = entry_point(VcpuId{1});
    BOOST_TEST(second.stack - first.stack == kStackBytes);
    BOOST_TEST(first.stack % 16 == 0u);
    BOOST_TEST(second.stack <= kImage);
    BOOST_TEST(second.rsi == 1u);
}

BOOST_AUTO_TEST_CASE(impossible_parameters_are_refused)
{
    const auto& workload = workloads().front();
    BOOST_TEST(!make_parameters(workload, ByteCount{16 * kMiB + 1}, 1, 1).ok());
    BOOST_TEST(!make_parameters(workload, ByteCount{8 * kMiB}, 1, 1).ok());
    BOOST_TEST(!make_parameters(workload, ByteCount{4 * kGiB}, 1, 1).ok());
    BOOST_TEST(!make_parameters(workload, ByteCount{64 * kMiB}, 0, 1).ok());
    BOOST_TEST(!make_parameters(workload, ByteCount{64 * kMiB}, 3, 1).ok());
    BOOST_TEST(find_workload("swim").error().message().find("touch.zipf.read") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()
