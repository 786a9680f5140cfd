#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <set>

#include "controller/gmm/placement.h"
#include "controller/gpm/placement.h"
#include "controller/gsm/placement.h"

namespace splitvisor::controller {

namespace {

constexpr ByteCount mib(std::uint64_t count)
{
    return ByteCount{count * kMiB};
}

ProcessorOffer processor(const std::string& name, std::uint64_t vcpus, ByteCount memory)
{
    return {name, true, vcpus, memory, {"initrd", "vmlinuz"}};
}

const ProcessorRequest kSmall{2, mib(64), "vmlinuz", {}};

std::string reason_of(const std::vector<Rejection>& rejected, const std::string& component)
{
    for (const Rejection& rejection : rejected) {
        if (rejection.component == component) return rejection.reason;
    }
    return {};
}

/// What holds for every placement of memory, whatever was asked.
void check_memory(const std::vector<MemoryOffer>& offers, const std::vector<RegionRequest>& requests,
                  std::size_t copies)
{
    const auto placement = place_regions(offers, requests, copies);
    if (!placement.possible) {
        BOOST_TEST(placement.replicas.empty());
        BOOST_TEST(placement.rejected.size() == offers.size());
        for (const Rejection& rejection : placement.rejected) BOOST_TEST(!rejection.reason.empty());
        return;
    }
    BOOST_TEST(placement.rejected.empty());
    BOOST_REQUIRE(placement.replicas.size() == requests.size());
    std::map<std::string, std::uint64_t> taken;
    for (std::size_t i = 0; i < requests.size(); ++i) {
        const auto& replicas = placement.replicas[i];
        BOOST_TEST(replicas.size() == std::max(copies, requests[i].kept.size()));
        BOOST_TEST(std::set<std::string>(replicas.begin(), replicas.end()).size() == replicas.size());
        BOOST_TEST(std::equal(requests[i].kept.begin(), requests[i].kept.end(), replicas.begin()));
        for (std::size_t j = requests[i].kept.size(); j < replicas.size(); ++j) {
            taken[replicas[j]] += requests[i].size.value();
        }
    }
    for (const auto& [name, bytes] : taken) {
        const auto offer =
            std::find_if(offers.begin(), offers.end(), [&](const auto& one) { return one.name == name; });
        BOOST_REQUIRE(offer != offers.end());
        BOOST_TEST(offer->connected);
        BOOST_TEST(bytes <= offer->free.value());
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(placement)

BOOST_AUTO_TEST_CASE(a_vnode_goes_where_most_memory_is_left)
{
    const auto chosen = [](const std::vector<ProcessorOffer>& offers) {
        return place_vnode(offers, kSmall).chosen.value_or("none");
    };
    BOOST_TEST(chosen({processor("a", 8, mib(100)), processor("b", 2, mib(200))}) == "b");
    BOOST_TEST(chosen({processor("b", 4, mib(100)), processor("a", 8, mib(100))}) == "a",
               "more vCPUs are left there");
    BOOST_TEST(chosen({processor("b", 8, mib(100)), processor("a", 8, mib(100))}) == "a",
               "the first by name");
    BOOST_TEST(chosen({processor("a", 2, mib(64))}) == "a", "it fits exactly");
    BOOST_TEST(chosen({}) == "none");
}

BOOST_AUTO_TEST_CASE(every_pcomponent_that_is_not_chosen_has_a_reason)
{
    auto away = processor("away", 8, mib(100));
    away.connected = false;
    auto bare = processor("bare", 8, mib(100));
    bare.kernels = {"other"};
    const std::vector<ProcessorOffer> offers{
        away, bare, processor("few", 1, mib(100)),
        ProcessorOffer{processor("full", 8, ByteCount{mib(64).value() - 1})}};
    const auto placement = place_vnode(offers, kSmall);
    BOOST_TEST(!placement.chosen.has_value());
    BOOST_REQUIRE(placement.rejected.size() == offers.size());
    BOOST_TEST(reason_of(placement.rejected, "away") == "not connected");
    BOOST_TEST(reason_of(placement.rejected, "bare") == "has no kernel 'vmlinuz'");
    BOOST_TEST(reason_of(placement.rejected, "few") == "1 vCPUs free, 2 needed");
    BOOST_TEST(reason_of(placement.rejected, "full") == "64.0 MiB free for ExCaches, 64 MiB needed");
    const auto initrd = place_vnode({processor("a", 8, mib(100))}, {1, mib(16), "vmlinuz", "missing"});
    BOOST_TEST(reason_of(initrd.rejected, "a") == "has no initrd 'missing'");
    BOOST_TEST(to_texts({}, "pComponent") == std::vector<std::string>{"no pComponent is enrolled"},
               boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(memory_spreads_to_where_most_is_left)
{
    const auto placement =
        place_regions({{"m1", true, mib(300)}, {"m2", true, mib(200)}, {"m3", true, mib(200)}},
                      {{mib(100), {}}, {mib(100), {}}, {mib(100), {}}, {mib(100), {}}}, 1);
    BOOST_REQUIRE(placement.possible);
    const std::vector<std::vector<std::string>> expected{{"m1"}, {"m1"}, {"m2"}, {"m3"}};
    BOOST_TEST((placement.replicas == expected));
}

BOOST_AUTO_TEST_CASE(copies_lie_on_different_mcomponents)
{
    const std::vector<MemoryOffer> two{{"m1", true, mib(1000)}, {"m2", true, mib(100)}};
    BOOST_TEST(place_regions(two, {{mib(100), {}}}, 2).possible);
    const auto second = place_regions(two, {{mib(100), {}}, {mib(100), {}}}, 2);
    BOOST_TEST(!second.possible, "m1 has room for both copies, and may have but one");
    BOOST_TEST(reason_of(second.rejected, "m1") ==
               "takes one copy of the vRegion, another mComponent must take the next");
    BOOST_TEST(reason_of(second.rejected, "m2") == "0 B left, 100 MiB needed for each vRegion");
    BOOST_TEST(!place_regions(two, {{mib(1), {}}}, 3).possible);
}

BOOST_AUTO_TEST_CASE(kept_replicas_stay_and_take_no_room)
{
    const std::vector<MemoryOffer> offers{
        {"m1", true, ByteCount{0}}, {"m2", true, mib(64)}, {"m3", false, mib(900)}};
    const auto placement = place_regions(offers, {{mib(64), {"m1"}}}, 2);
    BOOST_REQUIRE(placement.possible);
    BOOST_TEST(placement.replicas[0] == (std::vector<std::string>{"m1", "m2"}),
               boost::test_tools::per_element());
    const auto refused = place_regions(offers, {{mib(64), {"m2"}}}, 2);
    BOOST_TEST(!refused.possible);
    BOOST_TEST(reason_of(refused.rejected, "m3") == "not connected");
}

BOOST_AUTO_TEST_CASE(what_cannot_be_placed_leaves_nothing_half_placed)
{
    const auto placement = place_regions({{"m1", true, mib(150)}}, {{mib(100), {}}, {mib(100), {}}}, 1);
    BOOST_TEST(!placement.possible);
    BOOST_TEST(placement.replicas.empty());
    BOOST_TEST(!place_regions({}, {{mib(1), {}}}, 1).possible);
    BOOST_TEST(place_regions({}, {}, 1).possible, "nothing fits anywhere");
}

BOOST_AUTO_TEST_CASE(every_placement_of_memory_keeps_its_promises)
{
    std::uint64_t state = 1;
    const auto random = [&state](std::uint64_t below) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (state >> 33) % below;
    };
    for (int round = 0; round < 2000; ++round) {
        std::vector<MemoryOffer> offers;
        const auto components = random(6);
        for (std::uint64_t i = 0; i < components; ++i) {
            offers.push_back({"m" + std::to_string(i), random(5) != 0, mib(random(8) * 32)});
        }
        std::vector<RegionRequest> requests;
        const auto regions = 1 + random(5);
        for (std::uint64_t i = 0; i < regions; ++i) {
            RegionRequest request{mib(64), {}};
            if (!offers.empty() && random(3) == 0) request.kept.push_back(offers[random(offers.size())].name);
            requests.push_back(std::move(request));
        }
        check_memory(offers, requests, 1 + random(3));
    }
}

BOOST_AUTO_TEST_CASE(memory_is_divided_without_a_gap)
{
    BOOST_TEST(divide_memory(mib(0), mib(64)).empty());
    BOOST_TEST((divide_memory(mib(64), mib(64)) == std::vector<ByteCount>{mib(64)}));
    BOOST_TEST((divide_memory(mib(65), mib(64)) == std::vector<ByteCount>{mib(64), mib(1)}));
    BOOST_TEST((divide_memory(mib(1), mib(64)) == std::vector<ByteCount>{mib(1)}));
}

BOOST_AUTO_TEST_CASE(a_volume_goes_where_most_is_free_and_its_image_is)
{
    const std::vector<StorageOffer> offers{{"s1", true, mib(100), {"debian"}},
                                           {"s2", true, mib(500), {}},
                                           {"s3", false, mib(900), {"debian"}},
                                           {"s4", true, mib(100), {"debian"}}};
    BOOST_TEST(place_volume(offers, mib(100), "").chosen.value_or("none") == "s2");
    BOOST_TEST(place_volume(offers, mib(100), "debian").chosen.value_or("none") == "s1");
    const auto refused = place_volume(offers, mib(101), "debian");
    BOOST_TEST(!refused.chosen.has_value());
    BOOST_REQUIRE(refused.rejected.size() == offers.size());
    BOOST_TEST(reason_of(refused.rejected, "s1") == "100 MiB free, 101 MiB needed");
    BOOST_TEST(reason_of(refused.rejected, "s2") == "has no image 'debian'");
    BOOST_TEST(reason_of(refused.rejected, "s3") == "not connected");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
