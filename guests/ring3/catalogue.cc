#include "guests/ring3/catalogue.h"

#include <array>

#include "base/text.h"

namespace splitvisor::ring3 {
namespace {

constexpr std::uint64_t kTouches = 16'000;  // random ones may cost 0.1 ms each, so a run stays near one second

constexpr std::array kWorkloads{
    Workload{.name = "touch.sequential.read", .operations_per_page = 1, .what = "reads a word of each page in turn"},
    Workload{.name = "touch.sequential.write", .access = Access::kWrite, .operations_per_page = 1,
             .what = "writes a word of each page in turn"},
    Workload{.name = "touch.random.read", .order = Order::kRandom, .operations = kTouches,
             .what = "reads words of pages at random"},
    Workload{.name = "touch.random.write", .order = Order::kRandom, .access = Access::kWrite, .operations = kTouches,
             .what = "writes words of pages at random"},
    Workload{.name = "touch.zipf.read", .order = Order::kZipf, .operations = 4 * kTouches,
             .what = "reads words of pages, some pages far more often"},
    Workload{.name = "touch.zipf.write", .order = Order::kZipf, .access = Access::kWrite, .operations = 4 * kTouches,
             .what = "writes words of pages, some pages far more often"},
    Workload{.name = "wordcount", .program = Program::kWordCount, .what = "counts the words of a text"},
    Workload{.name = "kv", .program = Program::kKeyValue, .operations = 200'000,
             .what = "gets and puts of 256-byte records, some far more often"},
    Workload{.name = "sort", .program = Program::kSort, .what = "quicksort of 64-bit keys"},
    Workload{.name = "train", .program = Program::kTrain, .operations = 2,
             .what = "trains a small network by gradient descent"},
};

}  // namespace

std::span<const Workload> workloads() { return kWorkloads; }

Result<Workload> find_workload(std::string_view name)
{
    std::string names;
    for (const auto& workload : kWorkloads) {
        if (workload.name == name) return workload;
        names += (names.empty() ? "" : ", ") + std::string{workload.name};
    }
    return Error{ErrorCode::kNotFound, "there is no workload '" + std::string{name} + "'; there are " + names};
}

Result<Parameters> make_parameters(const Workload& workload, ByteCount memory, std::uint32_t vcpus, std::uint64_t seed)
{
    const auto bad = [](std::string text) { return Error{ErrorCode::kInvalid, std::move(text)}; };
    if (memory.value() % kPageBytes != 0) return bad("the memory's size must be a multiple of 4 KiB");
    if (memory < kMinMemory || memory.value() > kMaxMemory) {
        return bad("the memory must have " + format_size(kMinMemory) + " to " + format_size(ByteCount{kMaxMemory}));
    }
    if (vcpus == 0 || vcpus > kMaxVcpus) return bad("1 or 2 vCPUs are possible");
    const auto arena_bytes = memory.value() - kArena;
    auto operations = workload.operations;
    if (workload.operations_per_page != 0) operations = workload.operations_per_page * (arena_bytes / kPage);
    // Epochs are the only operations that all vCPUs do together.
    if (workload.program != Program::kTrain) operations /= vcpus;
    return Parameters{.program = workload.program,
                      .vcpus = vcpus,
                      .order = workload.order,
                      .access = workload.access,
                      .arena_bytes = arena_bytes,
                      .seed = seed,
                      .operations = operations};
}

}  // namespace splitvisor::ring3
