#include "base/text.h"

#include <unistd.h>

#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mapping.h"

using namespace splitvisor;
namespace data = boost::unit_test::data;

BOOST_AUTO_TEST_SUITE(text)

BOOST_DATA_TEST_CASE(sizes_that_people_write,
                     data::make<std::string>({"0", "4096", "64K", "512M", "2G", "1T", "3MiB", "7KB"}) ^
                         data::make<std::uint64_t>({0, 4096, 65536, 536870912, 2147483648, 1099511627776, 3145728,
                                                    7168}),
                     written, bytes)
{
    const auto size = parse_size(written);
    BOOST_REQUIRE(size.ok());
    BOOST_TEST(size->value() == bytes);
}

BOOST_DATA_TEST_CASE(sizes_that_are_none,
                     data::make<std::string>({"", "M", "-1", "1.5G", "12Q", "12MM", "12 M", "0x10", "iB", "5iB",
                                              "18446744073709551616", "99999999999T", "1Gi"}),
                     written)
{
    const auto size = parse_size(written);
    BOOST_REQUIRE(!size.ok());
    BOOST_TEST((size.error().code() == ErrorCode::kInvalid));
    BOOST_TEST(size.error().message().find("'" + written + "'") == 0u);
}

BOOST_AUTO_TEST_CASE(sizes_for_people)
{
    BOOST_TEST(format_size(ByteCount{512 * kMiB}) == "512 MiB");
    BOOST_TEST(format_size(ByteCount{1536 * kMiB}) == "1.5 GiB");
    BOOST_TEST(format_size(ByteCount{17}) == "17 B");
}

BOOST_AUTO_TEST_CASE(hexadecimal_there_and_back)
{
    const std::string bytes{"\x00\x7f\xff\x10", 4};
    BOOST_TEST(to_hex(bytes) == "007fff10");
    BOOST_TEST(from_hex("007fff10").value() == bytes);
    for (const auto* wrong : {"0", "0g", "  ", "0x"}) BOOST_TEST(!from_hex(wrong).ok());
}

BOOST_AUTO_TEST_CASE(names)
{
    for (const auto* good : {"a", "n1", "web-1", "a-b-c"}) BOOST_TEST(is_valid_name(good));
    for (const auto* bad : {"", "1n", "-a", "a-", "A", "a_b", "a/b", "..", "a b"}) BOOST_TEST(!is_valid_name(bad));
    BOOST_TEST(is_valid_name(std::string(63, 'a')));
    BOOST_TEST(!is_valid_name(std::string(64, 'a')));
}

BOOST_AUTO_TEST_CASE(log_fields_can_not_forge_lines)
{
    BOOST_TEST(field("key", "plain-1.5/x") == " key=plain-1.5/x");
    BOOST_TEST(field("key", "two words") == " key=\"two words\"");
    BOOST_TEST(field("key", "a\"b\\c") == " key=\"a\\\"b\\\\c\"");
    BOOST_TEST(field("key", "x\ny\x1b[0m") == " key=\"x\\x0ay\\x1b[0m\"");
    BOOST_TEST(field("key", "") == " key=\"\"");
}

BOOST_AUTO_TEST_CASE(a_call_site_is_limited)
{
    LogLimit limit;
    int allowed = 0;
    for (int i = 0; i < 1000; ++i) allowed += limit.allow() ? 1 : 0;
    BOOST_TEST(allowed == 10);
}

BOOST_AUTO_TEST_CASE(crc32c_of_known_strings)
{
    // RFC 3720 B.4.
    std::string zeros(32, '\0');
    std::string ones(32, '\xff');
    std::string rising(32, '\0');
    for (std::size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<char>(i);
    const auto crc_of = [](const std::string& text) { return crc32c(std::as_bytes(std::span{text})); };
    BOOST_TEST(crc_of(zeros) == 0x8a9136aau);
    BOOST_TEST(crc_of(ones) == 0x62a8ab43u);
    BOOST_TEST(crc_of(rising) == 0x46dd794eu);
    BOOST_TEST(crc_of("123456789") == 0xe3069283u);
    const std::string all = "some longer text of an odd length";
    for (std::size_t split = 0; split <= all.size(); ++split) {
        const auto bytes = std::as_bytes(std::span{all});
        BOOST_TEST(crc32c(bytes.subspan(split), crc32c(bytes.first(split))) == crc_of(all));
    }
}

BOOST_AUTO_TEST_CASE(crc32c_of_long_ranges_is_that_of_their_pieces)
{
    std::mt19937 random{1};
    std::vector<std::byte> bytes(3 * kPageBytes + 100);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    for (int round = 0; round < 300; ++round) {
        const auto offset = random() % 64;
        const auto range = std::span{bytes}.subspan(offset, random() % (bytes.size() - offset));
        std::uint32_t crc = 0;
        // Short pieces are summed up one word after the other.
        for (auto rest = range; !rest.empty();) {
            const auto piece = rest.first(std::min<std::size_t>(rest.size(), 1 + random() % 200));
            crc = crc32c(piece, crc);
            rest = rest.subspan(piece.size());
        }
        BOOST_REQUIRE_EQUAL(crc32c(range), crc);
    }
}

BOOST_AUTO_TEST_CASE(checked_sums)
{
    BOOST_TEST(!checked_add(~std::uint64_t{0}, std::uint64_t{1}).has_value());
    BOOST_TEST(checked_add(std::uint32_t{1}, std::uint32_t{2}).value() == 3u);
    BOOST_TEST(!checked_mul(std::uint64_t{1} << 33, std::uint64_t{1} << 31).has_value());
}

BOOST_AUTO_TEST_CASE(descriptors_move_and_close)
{
    auto first = EventFd::create();
    BOOST_REQUIRE(first.ok());
    BOOST_TEST(!first->drain());
    first->signal();
    first->signal();
    BOOST_TEST(first->drain());
    BOOST_TEST(!first->drain());
    Fd one{::dup(first->fd())};
    const int number = one.get();
    const Fd two{std::move(one)};
    BOOST_TEST(two.get() == number);
}

BOOST_AUTO_TEST_CASE(mappings_are_zero_and_whole_pages)
{
    const auto mapping = Mapping::anonymous(ByteCount{5000});
    BOOST_REQUIRE(mapping.ok());
    BOOST_TEST(mapping->size() == 8192u);
    for (const auto byte : mapping->bytes()) BOOST_REQUIRE((byte == std::byte{0}));
}

BOOST_AUTO_TEST_CASE(files_that_can_not_be_read_say_which)
{
    BOOST_TEST(read_file("/nowhere/at-all", ByteCount{10}).error().message().find("/nowhere/at-all") == 0u);
    BOOST_TEST(read_file("/proc", ByteCount{10}).error().message().find("directory") != std::string::npos);
    BOOST_TEST(read_file("/proc/self/status", ByteCount{10}).error().message().find("larger than 10 B") !=
               std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()
