#include "controller/vnodes/requests.h"

#include <algorithm>

#include "tests/unit/controller/checks.h"

namespace splitvisor::controller {

namespace {

Json parsed(const std::string& text)
{
    auto json = Json::parse(text);
    require_ok(json);
    return std::move(*json);
}

/// The smallest good request with one member more, or another.
Json vnode(const std::string& member = "", const std::string& value = "null")
{
    Json body = parsed(R"({"name":"web","memory":"512M","kernel":"vmlinuz"})");
    if (!member.empty()) body.set(member, parsed(value));
    return body;
}

std::string wrong(const std::string& member, const std::string& value)
{
    const auto request = parse_vnode_request(vnode(member, value));
    if (request) return "accepted";
    BOOST_TEST((request.problem().kind == Problem::Kind::kBadRequest));
    return request.problem().detail;
}

std::uint64_t excache_of(const std::string& memory, const std::string& excache)
{
    Json body = vnode("memory", memory);
    if (!excache.empty()) body.set("excache", parsed(excache));
    const auto request = parse_vnode_request(body);
    return request ? request->record.excache.value() : 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(requests)

BOOST_AUTO_TEST_CASE(defaults_are_those_of_the_documentation)
{
    const auto request = parse_vnode_request(vnode());
    require_done(request);
    const VnodeRecord& record = request->record;
    BOOST_TEST(record.memory.value() == 512 * kMiB);
    BOOST_TEST(record.excache.value() == 128 * kMiB);
    BOOST_TEST(record.vcpus == 1u);
    BOOST_TEST(record.memory_copies == 1u);
    BOOST_TEST(record.initrd.empty());
    BOOST_TEST(record.cmdline == "console=ttyS0");
    BOOST_TEST(record.mechanism == "auto");
    BOOST_TEST(record.disks.empty());
    BOOST_TEST(record.nets.empty());
    BOOST_TEST(!request->start);
}

BOOST_AUTO_TEST_CASE(a_body_that_is_no_object_is_refused)
{
    for (const char* body : {"null", "1", "\"web\"", "[]", "true", "[{\"name\":\"web\"}]"}) {
        const auto vnode_request = parse_vnode_request(parsed(body));
        check_kind(vnode_request, Problem::Kind::kBadRequest);
        BOOST_TEST(vnode_request.problem().detail == "the body must be a JSON object");
        check_kind(parse_volume_request(parsed(body)), Problem::Kind::kBadRequest);
    }
    BOOST_TEST(parse_stop_request(Json{}).ok(), "a stop needs no body");
    check_kind(parse_stop_request(parsed("[]")), Problem::Kind::kBadRequest);
}

BOOST_AUTO_TEST_CASE(all_that_is_wrong_is_told_at_once)
{
    const auto request =
        parse_vnode_request(parsed(R"({"nam":"web","memory":true,"vcpus":0,"start":"yes"})"));
    check_kind(request, Problem::Kind::kBadRequest);
    const auto& reasons = request.problem().reasons;
    BOOST_TEST(reasons.size() == 6u);
    BOOST_TEST(reasons.front() == request.problem().detail);
    for (const std::string part : {"unknown member 'nam'", "name must", "memory must", "vcpus must",
                                   "kernel is missing", "start must be true or false"}) {
        BOOST_TEST(std::any_of(reasons.begin(), reasons.end(),
                               [&](const auto& reason) { return contains(reason, part); }),
                   part);
    }
}

BOOST_AUTO_TEST_CASE(names_are_checked)
{
    const std::string longest(63, 'a');
    for (const std::string& good : {std::string{"a"}, std::string{"a-1"}, std::string{"n0"}, longest}) {
        BOOST_TEST(parse_vnode_request(vnode("name", "\"" + good + "\"")).ok(), good);
    }
    for (const std::string bad : {R"("")", R"("-a")", R"("a-")", R"("1a")", R"("A")", R"("a_b")", R"("a.b")",
                                  R"("a/b")", R"("../a")", R"("a\u0000b")", R"("ä")", "7", "null", "{}"}) {
        BOOST_TEST(contains(wrong("name", bad), "name must"), bad);
    }
    BOOST_TEST(contains(wrong("name", "\"" + longest + "a\""), "name must"));
}

BOOST_AUTO_TEST_CASE(sizes_are_checked)
{
    BOOST_TEST(parse_vnode_request(vnode("memory", "67108864")).ok());
    BOOST_TEST(parse_vnode_request(vnode("memory", "\"4T\"")).ok());
    for (const std::string bad : {"0",
                                  "-1",
                                  "1.5",
                                  "1e9",
                                  "null",
                                  "true",
                                  "[]",
                                  "\"\"",
                                  "\"M\"",
                                  "\"12X\"",
                                  "\"-64M\"",
                                  "\"1.5G\"",
                                  "\" 64M\"",
                                  "\"64M \"",
                                  "\"99999999999999999999\"",
                                  "\"99999999999T\"",
                                  "18446744073709551615",
                                  "\"63M\"",
                                  "\"5T\"",
                                  "67108865",
                                  "\"65537K\""}) {
        BOOST_TEST(contains(wrong("memory", bad), "memory must"), bad << ": " << wrong("memory", bad));
    }
}

BOOST_AUTO_TEST_CASE(the_excache_is_a_part_of_the_memory)
{
    BOOST_TEST(excache_of("\"512M\"", "\"25%\"") == 128 * kMiB);
    BOOST_TEST(excache_of("\"512M\"", "\"100%\"") == 512 * kMiB);
    BOOST_TEST(excache_of("\"512M\"", "\"64M\"") == 64 * kMiB);
    BOOST_TEST(excache_of("\"512M\"", "16777217") == 16 * kMiB, "whole lines");
    BOOST_TEST(excache_of("\"64M\"", "") == 16 * kMiB, "not less than it can work with");
    BOOST_TEST(excache_of("\"4T\"", "\"33%\"") ==
               (4096 * kGiB / 100 * 33 + 4096 * kGiB % 100 * 33 / 100) / 4096 * 4096);
    for (const std::string bad :
         {"\"0%\"", "\"101%\"", "\"%\"", "\"-5%\"", "\"2.5%\"", "\"25 %\"", "\"25%%\"",
          "\"99999999999999999999%\"", "25.5", "null", "\"513M\"", "\"1%\"", "16777215", "[]"}) {
        BOOST_TEST(contains(wrong("excache", bad), "excache"), bad << ": " << wrong("excache", bad));
    }
    Json body = vnode("memory", "\"nonsense\"");
    body.set("excache", "50%");
    const auto request = parse_vnode_request(body);
    check_kind(request, Problem::Kind::kBadRequest);
    BOOST_TEST(request.problem().reasons.empty(), "one thing is wrong, not two");
}

BOOST_AUTO_TEST_CASE(numbers_have_bounds)
{
    BOOST_TEST(parse_vnode_request(vnode("vcpus", "32")).ok());
    for (const std::string bad : {"0", "33", "-1", "1.0", "\"2\"", "null", "4294967297"}) {
        BOOST_TEST(contains(wrong("vcpus", bad), "vcpus must be a whole number from 1 to 32"), bad);
        BOOST_TEST(contains(wrong("memory_copies", bad == "33" ? "4" : bad), "memory_copies must"), bad);
    }
}

BOOST_AUTO_TEST_CASE(files_are_plain_names)
{
    for (const std::string bad : {R"("")", R"("a/b")", R"("/vmlinuz")", R"("..")", R"(".hidden")", R"("a b")",
                                  R"("a\nb")", "1", "null"}) {
        BOOST_TEST(contains(wrong("kernel", bad), "kernel must"), bad);
        if (bad != R"("")") BOOST_TEST(contains(wrong("initrd", bad), "initrd must"), bad);
    }
    BOOST_TEST(contains(wrong("kernel", "\"" + std::string(256, 'k') + "\""), "kernel must"));
    BOOST_TEST(contains(wrong("cmdline", R"("a\nb")"), "cmdline must"));
    BOOST_TEST(contains(wrong("cmdline", "\"" + std::string(2048, 'c') + "\""), "cmdline must"));
    BOOST_TEST(parse_vnode_request(vnode("cmdline", "\"" + std::string(2047, 'c') + "\"")).ok());
    BOOST_TEST(contains(wrong("mechanism", R"("steal")"), "mechanism must"));
}

BOOST_AUTO_TEST_CASE(disks_are_checked)
{
    const auto request =
        parse_vnode_request(vnode("volumes", R"([{"name":"a"},{"name":"b","read_only":true}])"));
    require_done(request);
    BOOST_REQUIRE(request->record.disks.size() == 2u);
    BOOST_TEST(!request->record.disks[0].read_only);
    BOOST_TEST(request->record.disks[1].read_only);
    BOOST_TEST(wrong("volumes", R"([{"name":"a"},{"name":"a"}])") == "volumes: 'a' is named twice");
    BOOST_TEST(wrong("volumes", R"(["a"])") == "volumes: each must be a JSON object");
    BOOST_TEST(wrong("volumes", R"([{"name":"a","mode":"ro"}])") == "volumes: unknown member 'mode'");
    BOOST_TEST(wrong("volumes", R"([{"name":"a","read_only":1}])") ==
               "volumes: read_only must be true or false");
    BOOST_TEST(wrong("volumes", R"([{}])") == "volumes: '' is not a valid name");
    BOOST_TEST(wrong("volumes", R"({"name":"a"})") == "volumes must be a list of at most 8");
    BOOST_TEST(wrong("volumes", R"([{},{},{},{},{},{},{},{},{}])") == "volumes must be a list of at most 8");
}

BOOST_AUTO_TEST_CASE(network_cards_are_checked)
{
    const auto request =
        parse_vnode_request(vnode("nets", R"([{"tap":"tap0"},{"tap":"tap0","mac":"52:54:00:00:00:01"}])"));
    require_done(request);
    BOOST_TEST(request->record.nets[0].mac.starts_with("52:54:00:"));
    BOOST_TEST(request->record.nets[0].mac.size() == 17u);
    for (const std::string bad :
         {"01:00:00:00:00:00", "00:00:00:00:00:00", "52:54:00:00:00:0A", "52:54:00:00:00",
          "52-54-00-00-00-01", "52:54:00:00:00:001", "5b:54:00:00:00:01"}) {
        BOOST_TEST(contains(wrong("nets", R"([{"tap":"t","mac":")" + bad + R"("}])"), "MAC address"), bad);
    }
    for (const std::string bad : {"", "0123456789abcdef", "..", "a/b", "a b"}) {
        BOOST_TEST(contains(wrong("nets", R"([{"tap":")" + bad + R"("}])"), "name of a tap device"), bad);
    }
    BOOST_TEST(wrong("nets", R"([7])") == "nets: each must be a JSON object");
    BOOST_TEST(wrong("nets", R"([{},{},{},{},{}])") == "nets must be a list of at most 4");
}

BOOST_AUTO_TEST_CASE(volumes_and_stops_are_checked)
{
    const auto volume = [](const std::string& text) {
        const auto request = parse_volume_request(parsed(text));
        return request ? std::string{} : request.problem().detail;
    };
    BOOST_TEST(volume(R"({"name":"root","size":"1M"})") == "");
    BOOST_TEST(volume(R"({"name":"root","size":"1024T","image":"debian"})") == "");
    BOOST_TEST(volume(R"({"name":"root"})") == "size is missing");
    BOOST_TEST(contains(volume(R"({"name":"root","size":0})"), "size must"));
    BOOST_TEST(contains(volume(R"({"name":"root","size":1048577})"), "size must"));
    BOOST_TEST(contains(volume(R"({"name":"root","size":"1025T"})"), "size must"));
    BOOST_TEST(contains(volume(R"({"name":"root","size":"1M","image":"../etc"})"), "image must"));
    BOOST_TEST(contains(volume(R"({"name":"root","size":"1M","images":"x"})"), "unknown member"));
    const auto stop = parse_stop_request(parsed(R"({"grace_ms":0,"force":true})"));
    require_done(stop);
    BOOST_TEST(stop->grace_ms == 0u);
    BOOST_TEST(stop->force);
    check_kind(parse_stop_request(parsed(R"({"grace_ms":600001})")), Problem::Kind::kBadRequest);
    check_kind(parse_stop_request(parsed(R"({"grace_ms":-1})")), Problem::Kind::kBadRequest);
    check_kind(parse_stop_request(parsed(R"({"forced":true})")), Problem::Kind::kBadRequest);
}

BOOST_AUTO_TEST_CASE(json_from_outside_is_bounded)
{
    check_code(Json::parse(""), ErrorCode::kInvalid);
    check_code(Json::parse("{"), ErrorCode::kInvalid);
    check_code(Json::parse("{} {}"), ErrorCode::kInvalid);
    check_code(Json::parse("\"\xff\""), ErrorCode::kInvalid);
    check_code(Json::parse(R"({"a":1,"a":2})"), ErrorCode::kInvalid);
    BOOST_TEST(Json::parse(std::string(Json::kMaxDepth, '[') + std::string(Json::kMaxDepth, ']')).ok());
    check_code(Json::parse(std::string(Json::kMaxDepth + 1, '[') + std::string(Json::kMaxDepth + 1, ']')),
               ErrorCode::kInvalid);
    check_code(Json::parse(std::string(1'000'000, '[')), ErrorCode::kInvalid);
    BOOST_TEST(Json{"\xff"}.dump() == "\"\xef\xbf\xbd\"");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
