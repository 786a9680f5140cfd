#include "guests/ring3/verifier.h"

#include <algorithm>
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <vector>

#include "base/mapping.h"
#include "guests/ring3/arithmetic.h"
#include "guests/ring3/catalogue.h"
#include "guests/ring3/native_run.h"
#include "guests/ring3/task.h"

using namespace splitvisor;
using namespace splitvisor::ring3;
namespace data = boost::unit_test::data;

namespace {

std::vector<std::string> names()
{
    std::vector<std::string> list;
    for (const auto& workload : workloads()) list.emplace_back(workload.name);
    return list;
}

/// A program that has run in the host, and its verifier.
struct Finished {
    Finished(const std::string& name, std::uint32_t vcpus) : Finished{name, vcpus, 1} {}
    Finished(const std::string& name, std::uint32_t vcpus, std::uint64_t seed)
        : parameters{*make_parameters(*find_workload(name), kMinMemory, vcpus, seed)}
    {
        auto memory_or = Mapping::anonymous(ByteCount{parameters.arena_bytes});
        BOOST_REQUIRE(memory_or.ok());
        memory = std::move(*memory_or);
        outcomes = run_natively(parameters, arena());
        auto verifier_or = Verifier::create(parameters);
        BOOST_REQUIRE(verifier_or.ok());
        verifier = std::move(*verifier_or);
    }

    [[nodiscard]] std::span<std::byte> arena() const { return memory.bytes(); }
    [[nodiscard]] std::span<std::byte> page(std::uint64_t number) const
    {
        return arena().subspan(number * kPage, kPage);
    }
    [[nodiscard]] std::uint64_t pages() const { return parameters.arena_bytes / kPage; }
    [[nodiscard]] bool good() const { return verifier->check(outcomes, arena()).ok(); }

    Parameters parameters;
    Mapping memory;
    std::vector<Outcome> outcomes;
    std::unique_ptr<Verifier> verifier;
};

/// The first and last pages, and some at random.
std::vector<std::uint64_t> some_pages(std::uint64_t pages, std::uint64_t count)
{
    std::vector<std::uint64_t> chosen{0, 1, pages - 2, pages - 1};
    for (std::uint64_t i = 0; i < count; ++i) chosen.push_back(below(random_at(99, i), pages));
    return chosen;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(verifier)

BOOST_DATA_TEST_CASE(a_right_result_is_accepted, data::make(names()) * data::make({1u, 2u}), name, vcpus)
{
    const Finished run{name, vcpus};
    const auto status = run.verifier->check(run.outcomes, run.arena());
    BOOST_TEST(status.ok(), (status.ok() ? "" : status.error().message()));
}

BOOST_DATA_TEST_CASE(a_flipped_bit_is_found_wherever_it_is, data::make(names()) * data::make({1u, 2u}), name, vcpus)
{
    const Finished run{name, vcpus};
    std::uint64_t i = 0;
    for (const auto page : some_pages(run.pages(), 24)) {
        const auto random = random_at(5, i++);
        auto& byte = run.page(page)[random % kPage];
        const auto bit = std::byte{1} << (random >> 60 & 7);
        byte ^= bit;
        BOOST_TEST(!run.good(), "page " << page << " byte " << random % kPage);
        byte ^= bit;
    }
    BOOST_TEST(run.good());
}

BOOST_DATA_TEST_CASE(a_page_that_comes_back_as_zero_is_found, data::make(names()) * data::make({1u, 2u}), name, vcpus)
{
    const Finished run{name, vcpus};
    const std::vector<std::byte> zero(kPage);
    for (const auto page : some_pages(run.pages(), 12)) {
        const std::vector<std::byte> saved{run.page(page).begin(), run.page(page).end()};
        if (saved == zero) continue;
        std::memset(run.page(page).data(), 0, kPage);
        BOOST_TEST(!run.good(), "page " << page);
        std::memcpy(run.page(page).data(), saved.data(), kPage);
    }
    BOOST_TEST(run.good());
}

BOOST_DATA_TEST_CASE(two_pages_that_are_swapped_are_found, data::make(names()) * data::make({1u, 2u}), name, vcpus)
{
    const Finished run{name, vcpus};
    const auto pages = some_pages(run.pages(), 12);
    for (std::size_t i = 0; i + 1 < pages.size(); ++i) {
        const auto a = run.page(pages[i]);
        const auto b = run.page(pages[i + 1]);
        if (std::equal(a.begin(), a.end(), b.begin())) continue;
        std::swap_ranges(a.begin(), a.end(), b.begin());
        BOOST_TEST(!run.good(), "pages " << pages[i] << " and " << pages[i + 1]);
        std::swap_ranges(a.begin(), a.end(), b.begin());
    }
    BOOST_TEST(run.good());
}

namespace {

struct Snapshot {
    std::span<const std::byte> arena;
    std::vector<std::byte> prepared;
};

}  // namespace

BOOST_DATA_TEST_CASE(a_page_that_comes_back_older_is_found, data::make(names()), name)
{
    const Finished run{name, 1};
    Snapshot snapshot{run.arena(), {}};
    std::memset(run.arena().data(), 0, run.arena().size());
    const Meeting meeting{[](void* self, Step step) {
                              auto& to = *static_cast<Snapshot*>(self);
                              if (step == Step::kPrepared) to.prepared.assign(to.arena.begin(), to.arena.end());
                          },
                          &snapshot};
    Outcome outcome;
    run_program(Task{run.parameters, run.arena().data(), 0, outcome, meeting});
    BOOST_REQUIRE(run.good());

    std::uint64_t tried = 0;
    for (std::uint64_t page = 0; page < run.pages() && tried < 40; ++page) {
        const auto now = run.page(page);
        auto* const older = snapshot.prepared.data() + page * kPage;
        if (std::memcmp(now.data(), older, kPage) == 0) continue;
        ++tried;
        std::swap_ranges(now.begin(), now.end(), older);
        BOOST_TEST(!run.good(), "page " << page);
        std::swap_ranges(now.begin(), now.end(), older);
    }
    const bool writes = !name.ends_with("read");
    BOOST_TEST((tried > 0) == writes);
}

BOOST_DATA_TEST_CASE(a_wrong_outcome_is_found, data::make(names()), name)
{
    Finished run{name, 2};
    const auto good = run.outcomes;
    run.outcomes[1].operations -= 1;
    BOOST_TEST(!run.good());
    run.outcomes = good;
    run.outcomes[0].errors = 1;
    BOOST_TEST(!run.good());
    run.outcomes = {good[0]};
    BOOST_TEST(!run.good());
    run.outcomes = good;
    if (name.ends_with("read") || name == "kv") {
        run.outcomes[1].checksum ^= 1;
        BOOST_TEST(!run.good());
    }
}

BOOST_DATA_TEST_CASE(the_memory_of_another_seed_is_refused, data::make(names()), name)
{
    const Finished run{name, 1};
    const Finished other{name, 1, 2};
    BOOST_TEST(!run.verifier->check(other.outcomes, other.arena()).ok());
}

BOOST_AUTO_TEST_SUITE_END()
