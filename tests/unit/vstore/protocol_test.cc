#include <array>
#include <cstring>
#include <random>

#include "base/bytes.h"
#include "fixtures.h"
#include "vstore/protocol.h"
#include "vstore/volume_record.h"

namespace splitvisor::vstore {

static Result<Request> parse(RequestKind kind, const RequestHead& head, std::size_t data_bytes)
{
    return parse_request(static_cast<std::uint16_t>(kind), bytes_of(head), data_bytes);
}

BOOST_AUTO_TEST_SUITE(protocol)

BOOST_AUTO_TEST_CASE(requests_are_checked_before_anything_looks_at_them)
{
    RequestHead head;
    head.length = 4096;
    BOOST_TEST(parse(RequestKind::kRead, head, 0).ok());
    BOOST_TEST(parse(RequestKind::kWrite, head, 4096).ok());
    check_code(parse(RequestKind::kRead, head, 512), ErrorCode::kInvalid);
    check_code(parse(RequestKind::kWrite, head, 4095), ErrorCode::kInvalid);
    check_code(parse(RequestKind::kWrite, head, 0), ErrorCode::kInvalid);
    check_code(parse(RequestKind::kFlush, head, 0), ErrorCode::kInvalid);
    check_code(parse_request(0, bytes_of(head), 0), ErrorCode::kInvalid);
    check_code(parse_request(9, bytes_of(head), 0), ErrorCode::kInvalid);
    check_code(parse_request(3, bytes_of(head).first(71), 0), ErrorCode::kInvalid);
    head.flags = kFlagReadOnly;
    check_code(parse(RequestKind::kRead, head, 0), ErrorCode::kInvalid);
    head.flags = 0;
    head.reserved = 1;
    check_code(parse(RequestKind::kRead, head, 0), ErrorCode::kInvalid);
    head.reserved = 0;
    head.length = kMaxRequestBytes + 512;
    check_code(parse(RequestKind::kRead, head, 0), ErrorCode::kInvalid);
    BOOST_TEST(parse(RequestKind::kDiscard, head, 0).ok());
    head.length = 0;
    check_code(parse(RequestKind::kDiscard, head, 0), ErrorCode::kInvalid);
    head.length = 100;
    check_code(parse(RequestKind::kRead, head, 0), ErrorCode::kInvalid);
    head.length = 512;
    head.offset = 1;
    check_code(parse(RequestKind::kRead, head, 0), ErrorCode::kInvalid);
}

BOOST_AUTO_TEST_CASE(random_heads_never_pass_with_a_broken_range)
{
    std::mt19937_64 random{20240811};
    const ByteCount size{1 * kGiB};
    int passed = 0;
    for (int round = 0; round < 300'000; ++round) {
        std::array<std::byte, sizeof(RequestHead) + 8> bytes{};
        RequestHead head;
        for (auto* const word : {&head.volume, &head.epoch, &head.offset, &head.length}) {
            *word = random() >> (random() % 64);
            if (random() % 2 == 0) *word &= ~std::uint64_t{511};
        }
        if (random() % 8 == 0) head.flags = static_cast<std::uint32_t>(random());
        if (random() % 8 == 0) head.length = 0 - head.offset;
        store(std::span{bytes}, 0, head);
        const auto length = random() % 16 == 0 ? random() % bytes.size() : sizeof head;
        const auto kind = static_cast<std::uint16_t>(random() % 12);
        const auto data = random() % 2 == 0 ? 0 : head.length;
        const auto request = parse_request(kind, std::span{bytes}.first(length), data);
        if (!request || !check_bounds(request->head.offset, request->head.length, size)) continue;
        ++passed;
        BOOST_REQUIRE(length == sizeof head);
        BOOST_REQUIRE(request->head.offset <= size.value());
        BOOST_REQUIRE(request->head.length <= size.value() - request->head.offset);
        BOOST_REQUIRE((request->head.offset | request->head.length) % 512 == 0);
        if (request->kind == RequestKind::kWrite) BOOST_REQUIRE(data <= kMaxRequestBytes);
    }
    BOOST_TEST(passed > 1000);
}

BOOST_AUTO_TEST_CASE(bounds_hold_at_the_edges)
{
    const ByteCount size{4096};
    BOOST_TEST(check_bounds(0, 4096, size).ok());
    BOOST_TEST(check_bounds(4096, 0, size).ok());
    BOOST_TEST(!check_bounds(4096, 512, size).ok());
    BOOST_TEST(!check_bounds(3584, 1024, size).ok());
    BOOST_TEST(!check_bounds(~std::uint64_t{511}, 1024, size).ok());
    BOOST_TEST(!check_bounds(512, ~std::uint64_t{511}, size).ok());
    BOOST_TEST(!check_bounds(8192, 0, size).ok());
}

BOOST_AUTO_TEST_CASE(statuses_and_capabilities_travel)
{
    for (int code = 0; code <= static_cast<int>(ErrorCode::kIo); ++code) {
        const auto error = static_cast<ErrorCode>(code);
        BOOST_TEST((error_of(status_of(error), "x").code() == error));
    }
    BOOST_TEST((error_of(999, "x").code() == ErrorCode::kCorrupt));

    const auto from_digits = parse_capability("000102030405060708090a0b0c0d0e0f");
    BOOST_REQUIRE(from_digits.ok());
    BOOST_TEST(same_capability(*from_digits, capability_of(0)));
    BOOST_TEST(!same_capability(*from_digits, capability_of(1)));
    check_code(parse_capability("0001"), ErrorCode::kInvalid);
    check_code(parse_capability("zz0102030405060708090a0b0c0d0e0f"), ErrorCode::kInvalid);
}

BOOST_AUTO_TEST_CASE(a_record_with_any_bit_flipped_is_refused)
{
    auto record = record_of(77, 5 * kGiB, 12);
    record.image = "debian-12.5_amd64";
    const auto bytes = encode(record);
    const auto back = decode_record(bytes);
    BOOST_REQUIRE(back.ok());
    BOOST_TEST((*back == record));
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        auto damaged = bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
        check_code(decode_record(damaged), ErrorCode::kCorrupt);
    }
    check_code(decode_record(std::span{bytes}.first(bytes.size() - 1)), ErrorCode::kCorrupt);
    check_code(decode_record({}), ErrorCode::kCorrupt);
}

BOOST_AUTO_TEST_CASE(image_names_stay_in_their_directory)
{
    for (const char* const name : {"debian", "Debian-12.5_amd64", "a..b", "0"}) BOOST_TEST(is_valid_image_name(name));
    for (const char* const name : {"", ".", "..", ".hidden", "-rf", "a/b", "../a", "a b", "a\n", "\xc3\xa4"}) {
        BOOST_TEST(!is_valid_image_name(name));
    }
    BOOST_TEST(is_valid_image_name(std::string(kMaxImageName, 'a')));
    BOOST_TEST(!is_valid_image_name(std::string(kMaxImageName + 1, 'a')));
    BOOST_TEST(!is_valid_image_name(std::string_view{"a\0b", 3}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
