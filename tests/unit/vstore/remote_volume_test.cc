#include <random>

#include "fixtures.h"

namespace splitvisor::vstore {

BOOST_AUTO_TEST_SUITE(remote_volume)

BOOST_AUTO_TEST_CASE(what_is_written_is_read_back)
{
    const TemporaryDirectory directory;
    Monitor monitor{directory.path()};
    const auto record = record_of(1, 8 * kMiB);
    require_ok(monitor.store().create(record));
    const auto volume = open_remote(monitor.options_for(record));
    BOOST_TEST(volume->capacity().value() == 8 * kMiB);
    SyncDisk disk{*volume};

    std::vector<std::byte> model(8 * kMiB);
    std::mt19937_64 random{7};
    for (int round = 0; round < 200; ++round) {
        const auto sectors = 1 + random() % (round % 10 == 0 ? 6000 : 64);
        const auto offset = random() % (8 * kMiB / 512 - sectors) * 512;
        const auto bytes = pattern(sectors * 512, random());
        require_ok(disk.write(offset, bytes));
        std::ranges::copy(bytes, model.begin() + static_cast<std::ptrdiff_t>(offset));
        if (round % 16 == 0) require_ok(disk.flush());
    }
    std::vector<std::byte> back(8 * kMiB);
    require_ok(disk.read(0, back));
    BOOST_CHECK(back == model);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vstore
