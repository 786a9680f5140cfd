#include "tests/bench/ring3_guest.h"

#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <thread>

#include "base/mapping.h"
#include "base/thread.h"
#include "ept/fault_engine.h"
#include "guests/ring3/catalogue.h"
#include "guests/ring3/machine_image.h"
#include "guests/ring3/verifier.h"
#include "tests/bench/in_process_store.h"
#include "vcpu/kvm.h"

using namespace splitvisor;
using namespace splitvisor::bench;
namespace data = boost::unit_test::data;

namespace {

constexpr ByteCount kMemory{24 * kMiB};
constexpr ByteCount kExcache{6 * kMiB};
/// A guard against hanging only: a starved machine has taken a minute.
constexpr std::uint64_t kDeadlineMs = 240'000;

struct WithKvm {
    boost::test_tools::assertion_result operator()(boost::unit_test::test_unit_id) const
    {
        const auto system = vcpu::System::open();
        boost::test_tools::assertion_result answer{system.ok()};
        if (!system) answer.message() << system.error().message();
        return answer;
    }
};

std::vector<std::string> names()
{
    std::vector<std::string> list;
    for (const auto& workload : ring3::workloads()) list.emplace_back(workload.name);
    return list;
}

ring3::Parameters parameters_of(const std::string& name, std::uint32_t vcpus)
{
    auto parameters = *ring3::make_parameters(*ring3::find_workload(name), kMemory, vcpus, 3);
    if (parameters.program == ring3::Program::kTouch || parameters.program == ring3::Program::kKeyValue) {
        parameters.operations = std::min<std::uint64_t>(parameters.operations, 6'000);
    }
    return parameters;
}

void expect_right(const ring3::Parameters& parameters, std::span<const std::byte> ram)
{
    const auto verifier = ring3::Verifier::create(parameters);
    BOOST_REQUIRE(verifier.ok());
    const auto verdict = (*verifier)->check(ring3::read_outcomes(ram, parameters), ram.subspan(ring3::kArena));
    BOOST_TEST(verdict.ok(), (verdict.ok() ? "" : verdict.error().message()));
}

Mapping local_memory()
{
    auto memory = Mapping::anonymous(kMemory);
    BOOST_REQUIRE(memory.ok());
    return std::move(*memory);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(ring3_guest, *boost::unit_test::precondition(WithKvm{}))

BOOST_DATA_TEST_CASE(guest_and_host_compute_the_same, data::make(names()) * data::make({1u, 2u}), name, vcpus)
{
    const auto parameters = parameters_of(name, vcpus);
    const auto memory = local_memory();
    Ring3Guest guest;
    const auto times = guest.run(memory.bytes(), parameters, kDeadlineMs);
    BOOST_REQUIRE_MESSAGE(times.ok(), (times.ok() ? "" : times.error().message()));
    BOOST_TEST(times->work_ns > 0u);
    expect_right(parameters, memory.bytes());
}

BOOST_DATA_TEST_CASE(nothing_is_lost_when_most_memory_is_remote,
                     data::make({"touch.zipf.write", "wordcount", "kv", "sort", "train"}) * data::make({1u, 2u}), name,
                     vcpus)
{
    const auto parameters = parameters_of(name, vcpus);
    auto store = make_in_process_store(kMemory);
    BOOST_REQUIRE(store.ok());
    Ring3Guest guest;
    const ept::EngineOptions options{.memory = kMemory, .excache = kExcache};
    const auto engine = ept::FaultEngine::start(options, **store, [&](const Error& error) { guest.fail(error); });
    BOOST_REQUIRE_MESSAGE(engine.ok(), (engine.ok() ? "" : engine.error().message()));
    const auto times = guest.run((*engine)->memory(), parameters, kDeadlineMs);
    BOOST_REQUIRE_MESSAGE(times.ok(), (times.ok() ? "" : times.error().message()));
    expect_right(parameters, (*engine)->memory());
    BOOST_TEST((*engine)->stats().remote_pages > 0u);
    BOOST_TEST((*engine)->stats().resident_peak <= kExcache.value() / kPageBytes);
}

BOOST_AUTO_TEST_CASE(steps_are_told_in_order_and_once)
{
    auto parameters = parameters_of("train", 2);
    const auto memory = local_memory();
    std::vector<ring3::Step> steps;
    Ring3Guest guest{[&](ring3::Step step) { steps.push_back(step); }};
    BOOST_REQUIRE(guest.run(memory.bytes(), parameters, kDeadlineMs).ok());
    BOOST_REQUIRE(steps.size() == 2 + 2 * parameters.operations);
    BOOST_TEST((steps.front() == ring3::Step::kPrepared));
    BOOST_TEST((steps.back() == ring3::Step::kWorked));
}

BOOST_AUTO_TEST_CASE(a_guest_that_does_not_end_is_stopped)
{
    auto parameters = parameters_of("touch.random.read", 2);
    parameters.operations = ~std::uint64_t{0};
    const auto memory = local_memory();
    Ring3Guest guest;
    const auto times = guest.run(memory.bytes(), parameters, 1'000);
    BOOST_REQUIRE(!times.ok());
    BOOST_TEST((times.error().code() == ErrorCode::kTimeout));
}

BOOST_AUTO_TEST_CASE(a_guest_without_memory_any_more_is_stopped)
{
    auto parameters = parameters_of("touch.random.read", 1);
    parameters.operations = ~std::uint64_t{0};
    const auto memory = local_memory();
    Ring3Guest guest;
    const Thread saboteur{"saboteur", [&] {
                              std::this_thread::sleep_for(std::chrono::milliseconds{300});
                              guest.fail(Error{ErrorCode::kStale, "fenced"});
                          }};
    const auto times = guest.run(memory.bytes(), parameters, kDeadlineMs);
    BOOST_REQUIRE(!times.ok());
    BOOST_TEST(times.error().message() == "fenced");
}

BOOST_AUTO_TEST_CASE(a_guest_that_does_nothing_is_an_error)
{
    auto parameters = parameters_of("sort", 1);
    parameters.program = static_cast<ring3::Program>(99);
    const auto memory = local_memory();
    Ring3Guest guest;
    const auto times = guest.run(memory.bytes(), parameters, kDeadlineMs);
    BOOST_REQUIRE(!times.ok());
    BOOST_TEST(times.error().message() == "the guest ended without any work");
}

BOOST_AUTO_TEST_CASE(a_guest_that_leaves_its_memory_is_an_error)
{
    // The arena is said to be larger than it is: the guest runs off its page tables.
    auto parameters = parameters_of("touch.sequential.write", 1);
    const auto memory = local_memory();
    Ring3Guest guest{[&](ring3::Step step) {
        if (step == ring3::Step::kPrepared) {
            auto* const block = reinterpret_cast<ring3::Parameters*>(memory.data() + ring3::kParameters);
            block->arena_bytes *= 8;
            block->operations *= 8;
        }
    }};
    const auto times = guest.run(memory.bytes(), parameters, kDeadlineMs);
    BOOST_REQUIRE(!times.ok());
    BOOST_TEST(times.error().message().find("vCPU 0") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()
