#include "guests/ring3/machine_image.h"

#include "base/bytes.h"
#include "base/log.h"

namespace splitvisor::ring3 {
namespace {

constexpr unsigned char kImageBytes[] = {
#include "ring3_image.inc"
};

// Page table entries, Intel SDM 3, 4.5. Accessed and dirty are set already: the processor then never writes to a table.
constexpr std::uint64_t kPresent = 1u << 0;
constexpr std::uint64_t kWritable = 1u << 1;
constexpr std::uint64_t kUser = 1u << 2;
constexpr std::uint64_t kAccessed = 1u << 5;
constexpr std::uint64_t kDirty = 1u << 6;
constexpr std::uint64_t kLargePage = 1u << 7;
constexpr std::uint64_t kTable = kPresent | kWritable | kUser | kAccessed;
constexpr std::uint64_t kPage2M = kTable | kDirty | kLargePage;
constexpr std::uint64_t kEntriesPerTable = 512;

void build_page_tables(std::span<std::byte> ram)
{
    const auto directory_pointers = kPageTables + kPage;
    const auto directories = directory_pointers + kPage;
    store(ram, kPageTables, directory_pointers | kTable);
    for (std::uint64_t mapped = 0; mapped < ram.size(); mapped += 2 * kMiB) {
        const auto directory = directories + mapped / kGiB * kPage;
        if (mapped % kGiB == 0) store(ram, directory_pointers + mapped / kGiB * 8, directory | kTable);
        store(ram, directory + mapped / (2 * kMiB) % kEntriesPerTable * 8, mapped | kPage2M);
    }
}

}  // namespace

std::span<const std::byte> guest_image() { return std::as_bytes(std::span{kImageBytes}); }

void build_machine(std::span<std::byte> ram, const Parameters& parameters)
{
    SPLITVISOR_CHECK(ram.size() == kArena + parameters.arena_bytes && ram.size() <= kMaxMemory);
    SPLITVISOR_CHECK(kImage + guest_image().size() <= kArena);
    build_page_tables(ram);
    std::memcpy(ram.data() + kImage, guest_image().data(), guest_image().size());
    store(ram, kParameters, parameters);
}

EntryPoint entry_point(VcpuId id)
{
    return {.page_tables = Gpa{kPageTables},
            .instruction = kImage,
            .stack = kStacks + (id.value() + 1) * kStackBytes,
            .rsi = id.value()};
}

std::vector<Outcome> read_outcomes(std::span<const std::byte> ram, const Parameters& parameters)
{
    std::vector<Outcome> outcomes;
    for (std::uint32_t vcpu = 0; vcpu < parameters.vcpus; ++vcpu) {
        outcomes.push_back(load<Outcome>(ram, kOutcomes + vcpu * kPage));
    }
    return outcomes;
}

std::span<std::byte> arena_of(std::span<std::byte> ram) { return ram.subspan(kArena); }

}  // namespace splitvisor::ring3
