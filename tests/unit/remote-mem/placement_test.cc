#include "remote-mem/placement.h"

#include <bit>
#include <boost/test/unit_test.hpp>
#include <thread>

namespace splitvisor::remote_mem {

namespace {

Replica replica(std::uint16_t component, std::uint64_t region = 1)
{
    return {"m" + std::to_string(component), {fabric::Endpoint::Scheme::kTcp, "127.0.0.1", component}, RegionId{region}, {}};
}

RemoteMemoryOptions mirrored(std::uint16_t replicas)
{
    RemoteMemoryOptions options{.regions = {{ByteCount{kMiB}, {}}}, .epoch = Epoch{1}};
    for (std::uint16_t i = 1; i <= replicas; ++i) options.regions[0].replicas.push_back(replica(i));
    return options;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(placement)

BOOST_AUTO_TEST_CASE(finds_each_line)
{
    RemoteMemoryOptions options;
    options.regions = {{ByteCount{3 * kPageBytes}, {replica(1)}},
                       {ByteCount{1 * kPageBytes}, {replica(2)}},
                       {ByteCount{2 * kPageBytes}, {replica(1), replica(2)}}};
    const auto made = Placement::create(options);
    BOOST_REQUIRE(made.ok());
    const auto& placement = **made;
    BOOST_TEST(placement.components().size() == 2u);
    const std::vector<std::pair<std::uint32_t, std::uint32_t>> expected{{0, 0}, {0, 1}, {0, 2}, {1, 0}, {2, 0}, {2, 1}};
    for (std::uint32_t line = 0; line < expected.size(); ++line) {
        const auto found = placement.locate(Line{line});
        BOOST_REQUIRE(found.has_value());
        BOOST_TEST(found->region == expected[line].first);
        BOOST_TEST(found->page == expected[line].second);
    }
    BOOST_TEST(!placement.locate(Line{6}).has_value());
    BOOST_TEST(!placement.locate(Line{~0u}).has_value());
}

BOOST_AUTO_TEST_CASE(refuses_what_makes_no_sense)
{
    const auto refused = [](const RemoteMemoryOptions& options) {
        const auto made = Placement::create(options);
        return !made.ok() && made.error().code() == ErrorCode::kInvalid;
    };
    BOOST_TEST(refused({}));
    BOOST_TEST(refused(mirrored(0)));
    BOOST_TEST(refused(mirrored(kMaxReplicas + 1)));
    BOOST_TEST(!refused(mirrored(kMaxReplicas)));
    auto options = mirrored(1);
    options.regions[0].size = ByteCount{0};
    BOOST_TEST(refused(options));
    options.regions[0].size = ByteCount{kPageBytes + 1};
    BOOST_TEST(refused(options));
    options.regions[0].size = ByteCount{std::uint64_t{1} << 50};
    BOOST_TEST(refused(options));
    options = mirrored(1);
    options.patience_ms = 0;
    BOOST_TEST(refused(options));
    options = mirrored(1);
    options.regions[0].replicas.push_back(replica(1, 9));
    BOOST_TEST(refused(options), "two replicas on one component are one failure");
}

BOOST_AUTO_TEST_CASE(keeps_the_last_replica)
{
    const auto placement = Placement::create(mirrored(3)).value().release();
    const std::unique_ptr<Placement> owner{placement};
    const Error reason{ErrorCode::kNotFound, "gone"};
    BOOST_TEST(placement->settle(0, 0b101));
    BOOST_TEST(placement->live(0) == 0b101u);
    BOOST_TEST(!placement->settle(0, 0b010), "what is lost cannot acknowledge");
    BOOST_TEST(placement->live(0) == 0b101u);
    BOOST_TEST(placement->give_up(0, 0, reason));
    BOOST_TEST(!placement->give_up(0, 2, reason));
    BOOST_TEST(!placement->settle(0, 0));
    BOOST_TEST(placement->live(0) == 0b100u);
    BOOST_REQUIRE(placement->lost().size() == 2u);
    BOOST_TEST(placement->lost()[0].component == "m1");
    BOOST_TEST(placement->lost()[1].component == "m2");
}

// Two sessions miss different replicas at the same moment: one of them must fail, for otherwise each of the two writes
// would be on a replica that nobody reads.
BOOST_AUTO_TEST_CASE(two_sessions_cannot_give_up_each_others_replica)
{
    for (int round = 0; round < 300; ++round) {
        const auto made = Placement::create(mirrored(2));
        auto& placement = *made.value();
        bool first = false;
        bool second = false;
        std::thread other{[&] { first = placement.settle(0, 0b01); }};
        second = placement.settle(0, 0b10);
        other.join();
        BOOST_TEST((first != second));
        BOOST_TEST(placement.live(0) == (first ? 0b01u : 0b10u));
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::remote_mem
