#include <boost/test/unit_test.hpp>

#include "base/mapping.h"
#include "tests/bench/fault_bench.h"
#include "tests/bench/paged_memory.h"
#include "tests/bench/throughput_bench.h"

using namespace splitvisor;
using namespace splitvisor::bench;

namespace {

const auto kSilent = [](const std::string&) {};

void expect_rows(const Result<std::vector<Row>>& rows, const std::vector<std::string>& names)
{
    BOOST_REQUIRE_MESSAGE(rows.ok(), (rows.ok() ? "" : rows.error().message()));
    BOOST_REQUIRE(rows->size() == names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
        const auto& row = (*rows)[i];
        BOOST_TEST(row.name == names[i]);
        BOOST_TEST(row.verified, row.name);
        BOOST_TEST(row.ratio.has_value(), row.name);
    }
}

}  // namespace

// That they measure, and measure right results; never how fast.
BOOST_AUTO_TEST_SUITE(paging_bench)

BOOST_AUTO_TEST_CASE(a_stamp_tells_a_page_from_others_and_from_half_a_page)
{
    const auto pages = Mapping::anonymous(PageCount{2}.bytes());
    BOOST_REQUIRE(pages.ok());
    stamp_page(pages->data(), Line{7});
    BOOST_TEST(is_stamped(pages->data(), Line{7}));
    BOOST_TEST(!is_stamped(pages->data(), Line{8}));
    BOOST_TEST(!is_stamped(pages->data() + kPageBytes, Line{0}));
    pages->data()[kPageBytes - 1] ^= std::byte{1};
    BOOST_TEST(!is_stamped(pages->data(), Line{7}));
}

BOOST_AUTO_TEST_CASE(fault_measures_every_transport)
{
    const FaultOptions options{.transports = {transports().begin(), transports().end()},
                               .engine = {.memory = ByteCount{24 * kMiB}, .excache = ByteCount{6 * kMiB}},
                               .runs = 2,
                               .faults = 50};
    expect_rows(FaultBench{options, kSilent}.run(), {"fault.tcp.textbook", "fault.tcp.floor", "fault.shm.textbook",
                                                     "fault.shm.floor", "fault.inprocess.textbook", "fault.inprocess.floor"});
}

BOOST_AUTO_TEST_CASE(throughput_measures_with_two_threads)
{
    const ThroughputOptions options{.engine = {.memory = ByteCount{24 * kMiB}, .excache = ByteCount{6 * kMiB}},
                                    .threads = 2,
                                    .runs = 1,
                                    .run_ms = 50};
    expect_rows(ThroughputBench{options, kSilent}.run(), {"throughput.seq.tcp.textbook", "throughput.seq.tcp.stream",
                                                          "throughput.random.tcp.textbook", "throughput.zerofill.local"});
}

BOOST_AUTO_TEST_CASE(an_unknown_transport_is_an_error)
{
    BOOST_TEST(find_transport("tcp").ok());
    BOOST_TEST(!find_transport("pigeon").ok());
}

BOOST_AUTO_TEST_SUITE_END()
