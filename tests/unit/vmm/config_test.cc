#include "vmm/config.h"

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>
#include <random>

#include "fixtures.h"

namespace splitvisor::vmm::test {
namespace {

using Json = nlohmann::json;
using Pointer = Json::json_pointer;

/// A configuration in which nothing is wrong.
Json good()
{
    return Json::parse(R"({
        "name": "web-1", "epoch": 7, "memory_bytes": 67108864, "excache_bytes": 16777216, "vcpus": 2,
        "kernel": "/boot/vmlinuz", "initrd": "/boot/initrd", "cmdline": "quiet", "run_dir": "/run/web-1",
        "regions": [
            {"size_bytes": 33554432, "replicas": [
                {"component": "mem-a", "endpoint": "tcp:127.0.0.1:7000", "region": 1,
                 "capability": "000102030405060708090a0b0c0d0eff"},
                {"component": "mem-b", "endpoint": "tcp:127.0.0.1:7001", "region": 1,
                 "capability": "00000000000000000000000000000001"}]},
            {"size_bytes": 33554432, "replicas": [
                {"component": "mem-a", "endpoint": "tcp:127.0.0.1:7000", "region": 2,
                 "capability": "00000000000000000000000000000002"}]}],
        "disks": [{"name": "root", "endpoint": "tcp:127.0.0.1:7100", "volume": 9, "size_bytes": 1048576,
                   "capability": "00000000000000000000000000000003", "read_only": true}],
        "nets": [{"tap": "tap0", "mac": "52:54:00:12:34:5a"}],
        "memory_mechanism": "write-protect", "torture": true})");
}

/// What parse_config says, which must be one printable line of bounded length.
std::string complaint(const std::string& text, MemoryKind kind = MemoryKind::kRemote)
{
    const auto config = parse_config(text, kind);
    if (config) return {};
    const auto& message = config.error().message();
    BOOST_TEST((config.error().code() == ErrorCode::kInvalid));
    BOOST_TEST(!message.empty());
    BOOST_TEST(message.size() < 4096u);
    for (const char c : message) BOOST_REQUIRE_MESSAGE(c >= ' ' && c <= '~', "unprintable: " << message);
    return message;
}
std::string complaint(const Json& json)
{
    return complaint(json.dump());
}

Json changed(const char* pointer, Json value)
{
    auto json = good();
    json[Pointer{pointer}] = std::move(value);
    return json;
}

struct Wrong {
    const char* pointer;
    const char* value;  ///< JSON
    const char* says;
};
std::ostream& operator<<(std::ostream& stream, const Wrong& wrong)
{
    return stream << wrong.pointer << " = " << wrong.value;
}

const std::vector<Wrong> kWrong{
    {"/name", "7", "name: must be a string"},
    {"/name", R"("")", "name: is empty"},
    {"/name", R"("Web_1")", "name: must be 1 to 63 of a-z"},
    {"/name", R"("a\u0000b")", "name: holds a zero byte"},
    {"/epoch", "-1", "epoch: must be a whole number"},
    {"/epoch", R"("7")", "epoch: must be a whole number"},
    {"/memory_bytes", "67108864.5", "memory_bytes: must be a whole number"},
    {"/memory_bytes", "67108865", "memory_bytes: must be a multiple of 4096"},
    {"/memory_bytes", "0", "memory_bytes: must be from 16777216 to"},
    {"/memory_bytes", "1099511631872", "memory_bytes: must be from"},
    {"/memory_bytes", "18446744073709551615", "memory_bytes: must be from"},
    {"/memory_bytes", "18446744073709551616", "memory_bytes: must be a whole number"},
    {"/memory_bytes", "1e300", "memory_bytes: must be a whole number"},
    {"/memory_bytes", "134217728", "regions: sum up to 67108864 bytes, memory_bytes is 134217728"},
    {"/excache_bytes", "67112960", "excache_bytes: must be from 4194304 to 67108864"},
    {"/excache_bytes", "4190208", "excache_bytes: must be from 4194304 to 67108864"},
    {"/excache_bytes", "4194305", "excache_bytes: must be a multiple of 4096"},
    {"/excache_bytes", "null", "excache_bytes: must be a whole number"},
    {"/vcpus", "0", "vcpus: must be from 1 to 254"},
    {"/vcpus", "255", "vcpus: must be from 1 to 254"},
    {"/vcpus", "4294967297", "vcpus: must be from 1 to 254"},
    {"/vcpus", "true", "vcpus: must be a whole number"},
    {"/kernel", R"("vmlinuz")", "kernel: must be an absolute path"},
    {"/kernel", R"("")", "kernel: is empty"},
    {"/initrd", R"("../initrd")", "initrd: must be an absolute path"},
    {"/cmdline", "[]", "cmdline: must be a string"},
    {"/run_dir", R"("run")", "run_dir: must be an absolute path"},
    {"/regions", "{}", "regions: must be an array"},
    {"/regions", "[]", "regions: sum up to 0 bytes"},
    {"/regions/0", "3", "regions[0]: must be an object"},
    {"/regions/1/size_bytes", "33554433", "regions[1].size_bytes: must be a multiple of 4096"},
    {"/regions/1/size_bytes", "18446744073709547520", "regions[1].size_bytes: must be from"},
    {"/regions/0/replicas", "[]", "regions[0].replicas: has no element"},
    {"/regions/0/replicas", "[1,2,3,4,5,6,7,8,9]", "regions[0].replicas: has more than 8 elements"},
    {"/regions/0/replicas/1/component", R"("")", "regions[0].replicas[1].component: is empty"},
    {"/regions/0/replicas/1/endpoint", R"("nowhere")", "regions[0].replicas[1].endpoint: endpoint 'nowhere'"},
    {"/regions/0/replicas/1/endpoint", R"("tcp:h:99999")", "the port is not 0 to 65535"},
    {"/regions/0/replicas/1/region", "-3", "regions[0].replicas[1].region: must be a whole number"},
    {"/regions/0/replicas/1/capability", R"("00")", "capability: must be 32 hexadecimal digits"},
    {"/regions/0/replicas/1/capability", R"("0x0102030405060708090a0b0c0d0e0f")",
     "must be 32 hexadecimal digits"},
    {"/regions/1/replicas/0/region", "1", "regions: two of them lie in the same vRegion"},
    {"/disks/0/name", "[]", "disks[0].name: must be a string"},
    {"/disks/0/endpoint", R"("unix:relative")", "disks[0].endpoint: endpoint 'unix:relative'"},
    {"/disks/0/size_bytes", "1000", "disks[0].size_bytes: must be a multiple of 512"},
    {"/disks/0/size_bytes", "0", "disks[0].size_bytes: must be from 512"},
    {"/disks/0/read_only", "1", "disks[0].read_only: must be true or false"},
    {"/disks/0/volume", "null", "disks[0].volume: must be a whole number"},
    {"/nets/0/tap", R"("a-name-of-sixteen")", "nets[0].tap: is longer than 15 characters"},
    {"/nets/0/mac", R"("52:54:00:12:34")", "nets[0].mac: must look like"},
    {"/nets/0/mac", R"("52:54:00:12:34:5g")", "nets[0].mac: must look like"},
    {"/nets/0/mac", R"("52:-2:00:12:34:56")", "nets[0].mac: must look like"},
    {"/nets/0/mac", R"("52:+2:00:12:34:56")", "nets[0].mac: must look like"},
    {"/nets/0/mac", R"("52: 4:00:12:34:56")", "nets[0].mac: must look like"},
    {"/nets/0/mac", R"("52-54-00-12-34-56")", "nets[0].mac: must look like"},
    {"/nets/0/mac", R"("53:54:00:12:34:56")", "nets[0].mac: is a group address"},
    {"/memory_mechanism", R"("best")", "memory_mechanism: must be auto, move or write-protect"},
    {"/torture", R"("yes")", "torture: must be true or false"},
    {"/colour", R"("red")", "colour: is not a known key"},
    {"/disks/0/readonly", "true", "disks[0].readonly: is not a known key"},
    {"/regions/0/replicas/0/port", "1", "regions[0].replicas[0].port: is not a known key"},
};

const std::vector<const char*> kRequired{"/name",
                                         "/epoch",
                                         "/memory_bytes",
                                         "/excache_bytes",
                                         "/vcpus",
                                         "/kernel",
                                         "/run_dir",
                                         "/regions",
                                         "/regions/0/size_bytes",
                                         "/regions/0/replicas",
                                         "/regions/0/replicas/0/component",
                                         "/regions/0/replicas/0/endpoint",
                                         "/regions/0/replicas/0/region",
                                         "/regions/0/replicas/0/capability",
                                         "/disks/0/name",
                                         "/disks/0/endpoint",
                                         "/disks/0/volume",
                                         "/disks/0/capability",
                                         "/disks/0/size_bytes",
                                         "/nets/0/tap",
                                         "/nets/0/mac"};

}  // namespace

BOOST_AUTO_TEST_SUITE(config)

BOOST_AUTO_TEST_CASE(every_field_arrives)
{
    const auto config = take(parse_config(good().dump(), MemoryKind::kRemote));
    BOOST_TEST(config.name == "web-1");
    BOOST_TEST(config.epoch.value() == 7u);
    BOOST_TEST(config.memory.value() == 64 * kMiB);
    BOOST_TEST(config.excache.value() == 16 * kMiB);
    BOOST_TEST(config.vcpus == 2u);
    BOOST_TEST(config.kernel == "/boot/vmlinuz");
    BOOST_TEST(config.initrd == "/boot/initrd");
    BOOST_TEST(config.command_line == "quiet");
    BOOST_TEST(config.run_dir == "/run/web-1");
    BOOST_REQUIRE(config.regions.size() == 2u);
    BOOST_REQUIRE(config.regions[0].replicas.size() == 2u);
    const auto& replica = config.regions[0].replicas[0];
    BOOST_TEST(replica.component == "mem-a");
    BOOST_TEST(replica.endpoint == "tcp:127.0.0.1:7000");
    BOOST_TEST(replica.region.value() == 1u);
    BOOST_TEST((replica.capability[1] == std::byte{1} && replica.capability[15] == std::byte{0xff}));
    BOOST_REQUIRE(config.disks.size() == 1u);
    BOOST_TEST(config.disks[0].read_only);
    BOOST_TEST(config.disks[0].volume.value() == 9u);
    BOOST_REQUIRE(config.nets.size() == 1u);
    BOOST_TEST((config.nets[0].mac == MacAddress{0x52, 0x54, 0x00, 0x12, 0x34, 0x5a}));
    BOOST_TEST((config.mechanism == ept::Mechanism::kWriteProtect));
    BOOST_TEST(config.torture);
}

BOOST_AUTO_TEST_CASE(what_may_be_left_out_may_be_left_out)
{
    auto json = good();
    for (const char* key : {"initrd", "cmdline", "disks", "nets", "memory_mechanism", "torture"})
        json.erase(key);
    const auto config = take(parse_config(json.dump(), MemoryKind::kRemote));
    BOOST_TEST(config.initrd.empty());
    BOOST_TEST((config.mechanism == ept::Mechanism::kAuto));
    BOOST_TEST(!config.torture);
}

BOOST_AUTO_TEST_CASE(local_memory_needs_no_excache_and_no_regions)
{
    auto json = good();
    json.erase("excache_bytes");
    json.erase("regions");
    BOOST_TEST(parse_config(json.dump(), MemoryKind::kLocal).ok());
    BOOST_TEST(!parse_config(json.dump(), MemoryKind::kRemote).ok());
    json["excache_bytes"] = 1;
    BOOST_TEST(!complaint(json.dump(), MemoryKind::kLocal).empty());
}

BOOST_AUTO_TEST_CASE(an_excache_as_large_as_the_memory_is_allowed)
{
    BOOST_TEST(complaint(changed("/excache_bytes", 64 * kMiB)) == "");
    BOOST_TEST(complaint(changed("/excache_bytes", 4 * kMiB)) == "");
}

BOOST_DATA_TEST_CASE(a_wrong_value_is_named, boost::unit_test::data::make(kWrong), wrong)
{
    const auto text = complaint(changed(wrong.pointer, Json::parse(wrong.value)));
    BOOST_TEST(text.find(wrong.says) != std::string::npos, text << " does not say: " << wrong.says);
}

BOOST_DATA_TEST_CASE(a_missing_field_is_named, boost::unit_test::data::make(kRequired), pointer)
{
    auto json = good();
    const Pointer where{pointer};
    json[where.parent_pointer()].erase(where.back());
    const auto text = complaint(json);
    BOOST_TEST(text.find(where.back() + ": is missing") != std::string::npos, text);
}

BOOST_AUTO_TEST_CASE(all_complaints_stand_in_one_line_of_bounded_length)
{
    auto json = good();
    json["vcpus"] = 0;
    json["kernel"] = 1;
    BOOST_TEST(complaint(json) == "vcpus: must be from 1 to 254; kernel: must be a string");
    for (int i = 0; i < 1000; ++i) json["unknown-" + std::to_string(i)] = 1;
    BOOST_TEST(complaint(json).ends_with("; and 994 more"));
}

BOOST_AUTO_TEST_CASE(a_key_that_would_break_the_line_does_not)
{
    auto json = good();
    json["two\nlines\x1b[31m"] = 1;
    BOOST_TEST(complaint(json) == "two?lines?[31m: is not a known key");
    json = good();
    json[std::string(100'000, 'k')] = 1;
    BOOST_TEST(complaint(json).size() < 200u);
}

BOOST_AUTO_TEST_CASE(what_contradicts_itself_is_refused)
{
    auto text = good().dump();
    text.insert(1, R"("vcpus": 9,)");
    BOOST_TEST(complaint(text) == "vcpus: stands twice in one object");
    auto json = good();
    json["disks"].push_back(json["disks"][0]);
    json["disks"][1]["name"] = "again";
    json["disks"][1]["endpoint"] = "127.0.0.1:7100";  // another spelling of the same
    BOOST_TEST(complaint(json) == "disks: two of them are the same volume");
}

BOOST_AUTO_TEST_CASE(there_are_windows_for_so_many_devices_and_no_more)
{
    auto json = good();
    for (unsigned i = 0; i < 8; ++i) {
        json["disks"][i] = json["disks"][0];
        json["disks"][i]["volume"] = i;
        json["nets"][i] = json["nets"][0];
    }
    json["disks"][8] = json["disks"][0];
    json["disks"][8]["volume"] = 8;
    BOOST_TEST(complaint(json) == "");
    json["nets"][8] = json["nets"][0];
    BOOST_TEST(complaint(json) == "disks, nets: more than 17 devices together");
    for (unsigned i = 0; i < 20; ++i) json["nets"][i] = json["nets"][0];
    BOOST_TEST(complaint(json).starts_with("nets: has more than 19 elements"));
}

BOOST_AUTO_TEST_CASE(the_names_of_sockets_fit_behind_the_longest_run_dir)
{
    BOOST_TEST(complaint(changed("/run_dir", "/" + std::string(93, 'r'))) == "");
    BOOST_TEST(
        complaint(changed("/run_dir", "/" + std::string(94, 'r'))).starts_with("run_dir: is longer than 94"));
}

BOOST_AUTO_TEST_CASE(what_is_no_json_object_is_refused_in_one_line)
{
    const std::string deep(1'000'000, '[');
    const std::string digits(100'000, '9');
    for (const std::string& text :
         {std::string{}, std::string{"null"}, std::string{"[]"}, std::string{"{"}, std::string{"{\"a\":}"},
          deep, "{\"vcpus\":" + deep, std::string{"\xff\xfe{}"}, std::string{"{\"a\":\"\n\"}"},
          std::string("{}\0{}", 5), "{\"vcpus\":" + digits + "}", "{\"vcpus\":1e" + digits + "}",
          "{\"" + digits + "\n", std::string{"{}{}"}}) {
        BOOST_TEST(complaint(text) != "");
    }
}

BOOST_AUTO_TEST_CASE(survives_whatever_a_file_may_hold)
{
    std::mt19937_64 random{20240607};
    const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
    const auto original = good().dump();
    constexpr std::string_view kSpice = "{}[]\",:0-9eE.\\u\n\x80 truefalsn";
    std::size_t accepted = 0;
    for (int round = 0; round < 4000; ++round) {
        auto text = original;
        for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
            const auto at = below(text.size());
            switch (below(4)) {
            case 0: text[at] = kSpice[below(kSpice.size())]; break;
            case 1: text.erase(at, 1 + below(40)); break;
            case 2: text.insert(at, 1 + below(3), kSpice[below(kSpice.size())]); break;
            default: text.insert(at, text.substr(below(text.size()), below(60))); break;
            }
            if (text.empty()) text = "{";
        }
        if (complaint(text).empty()) ++accepted;
    }
    BOOST_TEST_MESSAGE("accepted " << accepted << " of 4000");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
