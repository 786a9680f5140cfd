#include "vmm/virtio/block.h"

#include <boost/test/unit_test.hpp>

#include <random>

#include "tests/fakes/fake_block_backend.h"
#include "tests/fakes/guest_driver.h"

namespace splitvisor::vmm::virtio {

using fakes::Buffer;
using fakes::DeviceUnderTest;
using fakes::DriverRing;
using fakes::eventually;
using fakes::FakeBlockBackend;
using fakes::GuestRam;
using vstore::BlockKind;

namespace {

constexpr std::uint64_t kDiskBytes = 8 * kMiB;
constexpr std::uint64_t kSectors = kDiskBytes / 512;
constexpr Gpa kHeader{0x10000};
constexpr Gpa kStatus{0x10800};
constexpr Gpa kData{0x20000};
constexpr std::uint8_t kOk = 0;
constexpr std::uint8_t kIoError = 1;
constexpr std::uint8_t kUnsupported = 2;
constexpr std::uint8_t kUntouched = 0xee;
constexpr std::uint64_t kFlushFeature = 1u << 9;
constexpr std::uint64_t kDriverFeatures = kFeatureVersion1 | kFeatureIndirect | kFlushFeature;

struct BlockFixture {
    explicit BlockFixture(FakeBlockBackend::Mode mode = FakeBlockBackend::Mode::kInline, bool read_only = false,
                          std::uint64_t features = kDriverFeatures)
        : backend{kDiskBytes, mode, read_only}, device{make(), ram}
    {
        std::mt19937 random{1};
        for (auto& byte : backend.disk()) byte = static_cast<std::byte>(random());
        up(features);
    }
    std::unique_ptr<VirtioDevice> make()
    {
        auto made = Block::create(backend, "volume-42");
        BOOST_REQUIRE(made.ok());
        block = made->get();
        return std::move(*made);
    }
    void up(std::uint64_t features = kDriverFeatures)
    {
        ring = DriverRing{ram, Gpa{0x1000}, 64};
        ram.put(ring.layout().available, std::uint32_t{0});
        ram.put(ring.layout().used, std::uint32_t{0});
        BOOST_REQUIRE(device.negotiate(features));
        device.set_queue(0, ring.layout());
        device.driver_ok();
    }
    void header(std::uint32_t type, std::uint64_t sector)
    {
        ram.put(kHeader, type);
        ram.put(kHeader + 4, std::uint32_t{0});
        ram.put(kHeader + 8, sector);
        ram.put(kStatus, std::uint64_t{0xeeeeeeeeeeeeeeee});
    }
    std::uint8_t status() { return ram.get<std::uint8_t>(kStatus); }

    /// Header, the buffers, status; waits for the answer.
    std::uint8_t run(std::uint32_t type, std::uint64_t sector, std::vector<Buffer> buffers = {})
    {
        header(type, sector);
        buffers.insert(buffers.begin(), {kHeader, 16, false});
        buffers.push_back({kStatus, 1, true});
        return run_chain(buffers);
    }
    std::uint8_t run_chain(const std::vector<Buffer>& buffers)
    {
        const auto head = ring.add(buffers);
        BOOST_REQUIRE(head.has_value());
        used = device.complete(0, ring);
        BOOST_REQUIRE(used.has_value());
        BOOST_TEST(used->head == *head);
        BOOST_TEST(!device.needs_reset());
        // The status is one byte, and nothing is written behind it.
        BOOST_TEST(ram.get<std::uint8_t>(kStatus + 1) == kUntouched);
        return status();
    }
    std::uint8_t run_range(std::uint32_t type, std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags = 0)
    {
        ram.put(kData, sector);
        ram.put(kData + 8, sectors);
        ram.put(kData + 12, flags);
        return run(type, 0, {{kData, 16, false}});
    }
    /// A healthy read, to show that the queue goes on.
    void expect_working()
    {
        BOOST_TEST(run(0, 5, {{kData, 512, true}}) == kOk);
        BOOST_TEST((ram.get(kData, 512) == disk(5 * 512, 512)));
    }
    std::vector<std::byte> disk(std::uint64_t offset, std::size_t length)
    {
        const auto from = backend.disk().begin() + static_cast<std::ptrdiff_t>(offset);
        return {from, from + static_cast<std::ptrdiff_t>(length)};
    }

    GuestRam ram{16 * kMiB};
    FakeBlockBackend backend;
    Block* block = nullptr;
    DeviceUnderTest device;
    DriverRing ring{ram, Gpa{0x1000}, 64};
    std::optional<fakes::Used> used;
};

struct ReadOnlyFixture : BlockFixture {
    ReadOnlyFixture() : BlockFixture{FakeBlockBackend::Mode::kInline, true} {}
};
struct WriteThroughFixture : BlockFixture {
    WriteThroughFixture() : BlockFixture{FakeBlockBackend::Mode::kInline, false, kFeatureVersion1} {}
};
struct HeldFixture : BlockFixture {
    HeldFixture() : BlockFixture{FakeBlockBackend::Mode::kHeld} {}
    void submit_write(std::uint64_t sector, Gpa data)
    {
        header(1, sector);
        BOOST_REQUIRE(ring.add({{kHeader, 16, false}, {data, 512, false}, {kStatus, 1, true}}).has_value());
        const auto before = backend.seen().size();
        device.publish(0, ring);
        BOOST_REQUIRE(eventually([&] { return backend.seen().size() > before; }));
    }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(block, BlockFixture)

BOOST_AUTO_TEST_CASE(announces_its_configuration)
{
    BOOST_TEST(device.read(0x08) == 2u);
    BOOST_TEST(device.read(0x100) == kSectors);
    BOOST_TEST(device.read(0x108) == 4096u);
    BOOST_TEST(device.read(0x10c) == 254u);
    BOOST_TEST(device.read(0x114) == 512u);
    BOOST_TEST(device.read(0x128) == 1u);
    // A driver that keeps to them stays below what the back end carries at once.
    BOOST_TEST(device.read(0x108) * device.read(0x10c) <= vstore::kBestRequestBytes);
}

BOOST_AUTO_TEST_CASE(reads_and_writes_sectors)
{
    expect_working();
    BOOST_TEST(used->length == 513u);
    const auto sent = ram.get(kData, 512);
    BOOST_TEST(run(1, 100, {{kData, 512, false}}) == kOk);
    BOOST_TEST(used->length == 1u);
    BOOST_TEST((disk(100 * 512, 512) == sent));
    BOOST_TEST(block->counters().read_bytes == 512u);
    BOOST_TEST(block->counters().written_bytes == 512u);
}

BOOST_AUTO_TEST_CASE(reads_the_last_sector_and_nothing_beyond)
{
    BOOST_TEST(run(0, kSectors - 1, {{kData, 512, true}}) == kOk);
    BOOST_TEST(run(0, kSectors, {{kData, 512, true}}) == kIoError);
    BOOST_TEST(run(0, kSectors - 1, {{kData, 1024, true}}) == kIoError);
    BOOST_TEST(run(1, kSectors, {{kData, 512, false}}) == kIoError);
    BOOST_TEST(block->counters().errors == 3u);
    expect_working();
}

BOOST_AUTO_TEST_CASE(refuses_sectors_that_overflow)
{
    for (const std::uint64_t sector : {~std::uint64_t{0}, ~std::uint64_t{0} - 1, std::uint64_t{1} << 63, std::uint64_t{1} << 55}) {
        BOOST_TEST(run(0, sector, {{kData, 1024, true}}) == kIoError);
        BOOST_TEST(run(1, sector, {{kData, 1024, false}}) == kIoError);
    }
    BOOST_TEST(backend.seen().empty());
}

BOOST_AUTO_TEST_CASE(refuses_lengths_that_are_no_sectors)
{
    for (const std::uint32_t length : {1u, 511u, 513u, 1000u}) {
        BOOST_TEST(run(0, 0, {{kData, length, true}}) == kIoError);
        BOOST_TEST(run(1, 0, {{kData, length, false}}) == kIoError);
    }
    BOOST_TEST(backend.seen().empty());
}

BOOST_AUTO_TEST_CASE(answers_a_transfer_of_nothing_without_the_back_end)
{
    BOOST_TEST(run(0, 0) == kOk);
    BOOST_TEST(run(1, 0) == kOk);
    BOOST_TEST(backend.seen().empty());
}

BOOST_AUTO_TEST_CASE(gathers_pieces_that_split_header_data_and_status_anywhere)
{
    header(0, 9);
    // A header in bytes; data in uneven pieces, the last of which ends with the status.
    std::vector<Buffer> buffers;
    for (std::uint64_t i = 0; i < 16; ++i) buffers.push_back({kHeader + i, 1, false});
    buffers.push_back({kData, 100, true});
    buffers.push_back({kData + 200, 411, true});
    buffers.push_back({Gpa{kStatus.value() - 1}, 2, true});
    BOOST_TEST(run_chain(buffers) == kOk);
    BOOST_TEST((ram.get(kData, 100) == disk(9 * 512, 100)));
    BOOST_TEST((ram.get(kData + 200, 411) == disk(9 * 512 + 100, 411)));
    BOOST_TEST((ram.get<std::byte>(Gpa{kStatus.value() - 1}) == disk(9 * 512 + 511, 1)[0]));
}

BOOST_AUTO_TEST_CASE(writes_data_that_share_a_descriptor_with_the_header)
{
    header(1, 3);
    ram.put(kHeader + 16, std::span<const std::byte>{ram.get(kData, 512)});
    BOOST_TEST(run_chain({{kHeader, 16 + 512, false}, {kStatus, 1, true}}) == kOk);
    BOOST_TEST((disk(3 * 512, 512) == ram.get(kData, 512)));
}

BOOST_AUTO_TEST_CASE(refuses_a_short_header)
{
    for (const std::uint32_t length : {1u, 4u, 15u}) {
        header(0, 0);
        BOOST_TEST(run_chain({{kHeader, length, false}, {kData, 512, true}, {kStatus, 1, true}}) == kIoError);
    }
    header(0, 0);
    BOOST_TEST(run_chain({{kData, 512, true}, {kStatus, 1, true}}) == kIoError);
    BOOST_TEST(backend.seen().empty());
    expect_working();
}

BOOST_AUTO_TEST_CASE(returns_a_request_without_room_for_a_status)
{
    header(1, 0);
    BOOST_TEST(run_chain({{kHeader, 16, false}}) == kUntouched);
    BOOST_TEST(used->length == 0u);
    BOOST_TEST(run_chain({{kHeader, 16, false}, {kData, 512, false}}) == kUntouched);
    BOOST_TEST(run_chain({{kHeader, 16, false}, {kData, 512, false}, {kStatus, 1, false}}) == kUntouched);
    BOOST_TEST(block->counters().bad_chains == 3u);
    BOOST_TEST(backend.seen().empty());
    expect_working();
}

BOOST_AUTO_TEST_CASE(returns_a_malformed_chain_and_goes_on)
{
    ring.descriptor(63, kHeader, 16, fakes::kDescNext, 63);
    ring.offer(63);
    device.publish(0, ring);
    BOOST_REQUIRE(eventually([&] { return ring.take_used().has_value(); }));
    BOOST_TEST(block->counters().bad_chains == 1u);
    expect_working();
}

BOOST_AUTO_TEST_CASE(refuses_a_request_of_gigabytes)
{
    // Pieces may overlap, so little RAM makes a huge request.
    std::vector<Buffer> buffers(62, Buffer{Gpa{0}, 15 * kMiB, true});
    BOOST_TEST(run(0, 0, buffers) == kIoError);
    std::vector<Buffer> single(1, Buffer{kData, 4 * kMiB + 512, true});
    BOOST_TEST(run(0, 0, single) == kIoError);
    BOOST_TEST(backend.seen().empty());
    BOOST_TEST(run(0, 0, {{kData, 4 * kMiB, true}}) == kOk);
}

BOOST_AUTO_TEST_CASE(survives_requests_around_four_gigabytes)
{
    // 254 pieces of all 16 MiB of RAM are just below 4 GiB: an error with a status.
    header(0, 0);
    std::vector<Buffer> buffers(256, {Gpa{0}, 16 * kMiB, true});
    buffers.front() = {kHeader, 16, false};
    buffers.back() = {kStatus, 1, true};
    BOOST_REQUIRE(ring.add_indirect(Gpa{0x8000}, buffers).has_value());
    BOOST_REQUIRE(device.complete(0, ring).has_value());
    BOOST_TEST(status() == kIoError);
    // 256 of them are 4 GiB, which is no chain at all.
    BOOST_REQUIRE(ring.add_indirect(Gpa{0x8000}, std::vector<Buffer>(256, {Gpa{0}, 16 * kMiB, true})).has_value());
    used = device.complete(0, ring);
    BOOST_REQUIRE(used.has_value());
    BOOST_TEST(used->length == 0u);
    BOOST_TEST(block->counters().bad_chains == 1u);
    BOOST_TEST(backend.seen().empty());
    expect_working();
}

BOOST_AUTO_TEST_CASE(takes_the_largest_request_it_announces)
{
    header(0, 0);
    std::vector<Buffer> buffers{{kHeader, 16, false}};
    for (std::uint64_t i = 0; i < 254; ++i) buffers.push_back({Gpa{0x100000 + 2 * i * 4096}, 4096, true});
    buffers.push_back({kStatus, 1, true});
    BOOST_REQUIRE(ring.add_indirect(Gpa{0x8000}, buffers).has_value());
    BOOST_REQUIRE(device.complete(0, ring).has_value());
    BOOST_TEST(status() == kOk);
    BOOST_TEST((ram.get(Gpa{0x100000 + 2 * 253 * 4096}, 4096) == disk(253 * 4096, 4096)));
    BOOST_TEST(backend.seen().size() == 1u);
}

BOOST_AUTO_TEST_CASE(flushes_with_or_without_data)
{
    BOOST_TEST(run(4, 0) == kOk);
    BOOST_TEST(run(4, ~std::uint64_t{0}, {{kData, 512, false}, {kData, 700, true}}) == kOk);
    BOOST_TEST((backend.seen().back().kind == BlockKind::kFlush));
    BOOST_TEST(block->counters().flushes == 2u);
}

BOOST_AUTO_TEST_CASE(answers_get_id_into_any_buffer)
{
    const std::string id = "volume-42";
    for (const std::uint32_t length : {0u, 1u, 8u, 20u, 512u}) {
        ram.fill(kData, 600, std::byte{0xcc});
        std::vector<Buffer> buffers;
        if (length != 0) buffers.push_back({kData, length, true});
        BOOST_TEST(run(8, 0, buffers) == kOk);
        const auto got = ram.get(kData, 600);
        for (std::uint32_t i = 0; i < 600; ++i) {
            const auto expected = i >= std::min(length, 20u) ? 0xcc : i < id.size() ? id[i] : 0;
            BOOST_REQUIRE(static_cast<int>(got[i]) == expected);
        }
    }
}

BOOST_AUTO_TEST_CASE(answers_unknown_types_as_unsupported)
{
    for (const std::uint32_t type : {2u, 3u, 5u, 9u, 10u, 12u, 14u, 16u, 0x80000000u, 0xffffffffu}) {
        BOOST_TEST(run(type, 0, {{kData, 512, true}}) == kUnsupported);
    }
    BOOST_TEST(backend.seen().empty());
    expect_working();
}

BOOST_AUTO_TEST_CASE(discards_and_zeroes_ranges)
{
    BOOST_TEST(run_range(11, 8, 16) == kOk);
    BOOST_TEST(run_range(13, 64, 8, 1) == kOk);
    const auto seen = backend.seen();
    BOOST_REQUIRE(seen.size() == 2u);
    BOOST_TEST((seen[0].kind == BlockKind::kDiscard && seen[0].offset == 4096 && seen[0].length == 8192));
    BOOST_TEST((seen[1].kind == BlockKind::kWriteZeroes && seen[1].offset == 32768 && seen[1].length == 4096));
    BOOST_TEST(run_range(13, 64, 0) == kOk);
    BOOST_TEST(run_range(11, kSectors - 8, 8) == kOk);
}

BOOST_AUTO_TEST_CASE(refuses_ranges_that_are_wrong)
{
    BOOST_TEST(run_range(11, kSectors - 8, 9) == kIoError);
    BOOST_TEST(run_range(11, ~std::uint64_t{0}, 1) == kIoError);
    BOOST_TEST(run_range(13, ~std::uint64_t{0}, 0xffffffff) == kIoError);
    BOOST_TEST(run_range(13, 0, 0xffffffff) == kIoError);
    BOOST_TEST(run_range(11, 0, 8, 1) == kUnsupported);
    BOOST_TEST(run_range(13, 0, 8, 2) == kUnsupported);
    BOOST_TEST(run_range(13, 0, 8, 0xffffffff) == kUnsupported);
    BOOST_TEST(run(11, 0) == kIoError);
    BOOST_TEST(run(11, 0, {{kData, 15, false}}) == kIoError);
    BOOST_TEST(run(11, 0, {{kData, 17, false}}) == kIoError);
    BOOST_TEST(run(13, 0, {{kData, 32, false}}) == kIoError);
    BOOST_TEST(run(13, 0, {{kData, 16, true}}) == kIoError);
    BOOST_TEST(backend.seen().empty());
    expect_working();
}

BOOST_FIXTURE_TEST_CASE(refuses_every_change_to_a_read_only_disk, ReadOnlyFixture)
{
    BOOST_TEST((device.offered() & (1u << 5)) != 0u);
    BOOST_TEST((device.offered() & (1u << 13 | 1u << 14)) == 0u);
    const auto before = backend.disk();
    BOOST_TEST(run(1, 0, {{kData, 512, false}}) == kIoError);
    BOOST_TEST(run_range(11, 0, 8) == kIoError);
    BOOST_TEST(run_range(13, 0, 8) == kIoError);
    BOOST_TEST(run(4, 0) == kOk);
    BOOST_TEST((backend.disk() == before));
    expect_working();
}

BOOST_FIXTURE_TEST_CASE(flushes_each_write_for_a_driver_without_flush, WriteThroughFixture)
{
    BOOST_TEST(run(1, 7, {{kData, 512, false}}) == kOk);
    auto seen = backend.seen();
    BOOST_REQUIRE(seen.size() == 2u);
    BOOST_TEST((seen[0].kind == BlockKind::kWrite));
    BOOST_TEST((seen[1].kind == BlockKind::kFlush));
    backend.fail_next(ErrorCode::kIo);
    BOOST_TEST(run(1, 7, {{kData, 512, false}}) == kIoError);
    BOOST_TEST(backend.seen().size() == 3u);
    expect_working();
}

BOOST_AUTO_TEST_CASE(turns_failures_of_the_back_end_into_statuses)
{
    const auto before = ram.get(kData, 512);
    for (const auto code : {ErrorCode::kIo, ErrorCode::kStale, ErrorCode::kUnavailable, ErrorCode::kNoRoom, ErrorCode::kDenied}) {
        backend.fail_next(code);
        BOOST_TEST(run(0, 0, {{kData, 512, true}}) == kIoError);
    }
    // What the buffer held at the back end stays there.
    BOOST_TEST((ram.get(kData, 512) == before));
    backend.fail_next(ErrorCode::kUnsupported);
    BOOST_TEST(run(4, 0) == kUnsupported);
    expect_working();
}

BOOST_AUTO_TEST_CASE(tells_the_driver_of_a_new_capacity)
{
    const auto generation = device.read(0xfc);
    const auto raised = device.line.raised();
    block->set_capacity(ByteCount{4 * kMiB});
    BOOST_TEST(device.read(0x100) == 8192u);
    BOOST_TEST(device.read(0xfc) != generation);
    BOOST_TEST((device.read(0x60) & 2) == 2u);
    BOOST_TEST(device.line.raised() == raised + 1);
    BOOST_TEST(run(0, 8192, {{kData, 512, true}}) == kIoError);
    BOOST_TEST(run(0, 8191, {{kData, 512, true}}) == kOk);
    device.write(0x70, 0);
    block->set_capacity(ByteCount{8 * kMiB});
    BOOST_TEST(device.read(0x60) == 0u);
}

BOOST_AUTO_TEST_CASE(asks_for_reset_when_the_ring_breaks)
{
    ring.available_index(1000);
    device.notify(0);
    BOOST_REQUIRE(eventually([&] { return device.needs_reset(); }));
    BOOST_TEST(device.read(0x60) == 2u);
    device.notify(0);
    up();
    expect_working();
}

BOOST_AUTO_TEST_CASE(interrupts_once_for_a_batch)
{
    header(0, 0);
    for (int i = 0; i < 10; ++i) {
        BOOST_REQUIRE(ring.add({{kHeader, 16, false}, {kData, 512, true}, {kStatus, 1, true}}).has_value());
    }
    const auto raised = device.line.raised();
    device.publish(0, ring);
    BOOST_REQUIRE(eventually([&] { return ring.used_index() != 0; }));
    BOOST_TEST(ring.used_index() == 10);
    BOOST_TEST(eventually([&] { return device.line.raised() == raised + 1; }));
}

BOOST_FIXTURE_TEST_CASE(drops_completions_that_come_after_a_reset, HeldFixture)
{
    header(0, 5);
    const auto before = ram.get(kData, 512);
    BOOST_REQUIRE(ring.add({{kHeader, 16, false}, {kData, 512, true}, {kStatus, 1, true}}).has_value());
    device.publish(0, ring);
    BOOST_REQUIRE(eventually([&] { return backend.held() == 1; }));
    device.write(0x70, 0);
    ram.put(ring.layout().used, std::uint64_t{0});
    backend.release();
    BOOST_TEST((ram.get(kData, 512) == before));
    BOOST_TEST(status() == kUntouched);
    up();
    BOOST_REQUIRE(eventually([&] { return block->counters().dropped == 1; }));
    BOOST_TEST(ring.used_index() == 0);
    BOOST_TEST((ram.get(kData, 512) == before));
}

BOOST_FIXTURE_TEST_CASE(submits_nothing_while_writes_of_an_earlier_driver_are_out, HeldFixture)
{
    submit_write(5, kData);
    device.write(0x70, 0);
    up();
    header(0, 5);
    ram.fill(kData, 512, std::byte{0x77});
    BOOST_REQUIRE(ring.add({{kHeader, 16, false}, {kData, 512, true}, {kStatus, 1, true}}).has_value());
    device.publish(0, ring);
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
    BOOST_TEST(backend.seen().size() == 1u);
    backend.release();
    BOOST_REQUIRE(eventually([&] { return backend.held() == 1; }));
    backend.release();
    BOOST_REQUIRE(eventually([&] { return ring.take_used().has_value(); }));
    // The new driver reads what the old one had written last.
    BOOST_TEST((ram.get(kData, 512) == disk(5 * 512, 512)));
}

BOOST_FIXTURE_TEST_CASE(survives_resets_and_its_end_with_requests_in_flight, HeldFixture)
{
    for (int round = 0; round < 200; ++round) {
        header(1, 1);
        for (int i = 0; i < 20; ++i) {
            BOOST_REQUIRE(ring.add({{kHeader, 16, false}, {kData, 4096, false}, {kStatus, 1, true}}).has_value());
        }
        device.publish(0, ring);
        if (round % 3 == 0) BOOST_REQUIRE(eventually([&] { return backend.held() > 0; }));
        device.write(0x70, 0);
        if (round % 2 == 0) backend.release();
        up();
    }
    BOOST_TEST(backend.most_in_flight() <= vstore::kMaxInFlight);
    header(1, 1);
    backend.release();
    BOOST_REQUIRE(ring.add({{kHeader, 16, false}, {kData, 4096, false}, {kStatus, 1, true}}).has_value());
    device.publish(0, ring);
    BOOST_REQUIRE(eventually([&] { return backend.held() > 0; }));
    device.destroy();
    backend.release();
}

BOOST_FIXTURE_TEST_CASE(bounds_the_memory_that_requests_in_flight_take, HeldFixture)
{
    // 60 requests of 4 MiB would be 240 MiB.
    header(0, 0);
    for (std::uint64_t i = 0; i < 20; ++i) {
        BOOST_REQUIRE(ring.add({{kHeader, 16, false}, {kData, 4 * kMiB, true}, {kStatus, 1, true}}).has_value());
    }
    device.publish(0, ring);
    BOOST_REQUIRE(eventually([&] { return backend.held() == 4; }));
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    BOOST_TEST(backend.held() == 4u);
    std::size_t answered = 0;
    BOOST_REQUIRE(eventually([&] {
        backend.release();
        while (ring.take_used()) ++answered;
        return answered == 20;
    }));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::virtio
