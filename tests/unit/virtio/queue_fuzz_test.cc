#include <boost/test/unit_test.hpp>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "tests/fakes/guest_driver.h"
#include "vmm/virtio/split_queue.h"

namespace splitvisor::vmm::virtio {

using fakes::DriverRing;
using fakes::GuestRam;

namespace {

constexpr std::uint64_t kRamBytes = 64 * kKiB;
constexpr std::uint16_t kSize = 16;
constexpr Gpa kRing{0x1000};
constexpr Gpa kTables{0x4000};

/// Whatever pop() lets through must be usable as it is.
void check_chain(const SplitQueue& queue, const GuestRam& ram, const Chain& chain)
{
    BOOST_REQUIRE(chain.head < queue.size());
    std::uint64_t total = 0;
    for (const auto* list : {&chain.readable, &chain.writable}) {
        BOOST_REQUIRE(list->segments().size() <= kSize + kMaxQueueSize);
        for (const auto& segment : list->segments()) {
            total += segment.length;
            BOOST_REQUIRE(segment.length > 0);
            BOOST_REQUIRE(segment.address.value() < kRamBytes);
            BOOST_REQUIRE(segment.length <= kRamBytes - segment.address.value());
        }
    }
    BOOST_REQUIRE(total == chain.readable.bytes() + chain.writable.bytes());
    BOOST_REQUIRE(total <= 0xffffffff);
    std::array<std::byte, 64> bytes;
    const auto length = std::min<std::uint64_t>(bytes.size(), chain.readable.bytes());
    BOOST_REQUIRE(chain.readable.read(ram.memory(), chain.readable.bytes() - length, std::span{bytes}.first(length)));
}

class RandomRing {
  public:
    explicit RandomRing(std::uint64_t seed) : random_{seed} {}

    std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }
    bool one_in(std::uint32_t chance) { return below(chance) == 0; }

    /// Mostly plausible, sometimes wild.
    Gpa address()
    {
        if (one_in(12)) return Gpa{random_()};
        if (one_in(12)) return Gpa{kRamBytes - below(64)};
        return Gpa{0x8000u + below(0x7000)};
    }
    std::uint32_t length()
    {
        if (one_in(12)) return static_cast<std::uint32_t>(random_());
        return one_in(10) ? 0 : below(512);
    }
    void fill_descriptor(DriverRing& ring, Gpa where, std::uint32_t count)
    {
        std::uint16_t flags = 0;
        if (one_in(2)) flags |= fakes::kDescNext;
        if (one_in(3)) flags |= fakes::kDescWrite;
        if (one_in(30)) flags = static_cast<std::uint16_t>(random_());
        const auto next = one_in(20) ? static_cast<std::uint16_t>(random_()) : static_cast<std::uint16_t>(below(count));
        if (one_in(6)) {
            ring.raw_descriptor(where, kTables + 16 * below(16), one_in(8) ? length() : 16 * (1 + below(8)),
                                static_cast<std::uint16_t>(fakes::kDescIndirect | (one_in(8) ? flags : 0)), next);
        } else {
            ring.raw_descriptor(where, address(), length(), flags, next);
        }
    }

  private:
    std::mt19937_64 random_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(queue_fuzz)

BOOST_AUTO_TEST_CASE(random_rings_never_yield_an_unusable_chain)
{
    std::uint64_t good = 0;
    std::uint64_t bad = 0;
    std::uint64_t broken = 0;
    for (std::uint64_t seed = 1; seed <= 4000; ++seed) {
        RandomRing random{seed};
        const GuestRam ram{kRamBytes};
        const bool event_index = random.one_in(2);
        DriverRing ring{ram, kRing, kSize, event_index};
        auto queue = SplitQueue::create(ram.memory(), ring.layout(), {.indirect = !random.one_in(4), .event_index = event_index});
        BOOST_REQUIRE(queue.ok());
        for (std::uint32_t i = 0; i < kSize; ++i) random.fill_descriptor(ring, kRing + 16 * i, kSize);
        for (std::uint32_t i = 0; i < 24; ++i) random.fill_descriptor(ring, kTables + 16 * i, 8);

        Chain chain;
        std::vector<std::uint16_t> held;
        for (int step = 0; step < 60 && !queue->broken(); ++step) {
            if (random.one_in(3)) random.fill_descriptor(ring, kRing + 16 * random.below(kSize), kSize);
            ring.offer(random.one_in(60) ? static_cast<std::uint16_t>(random.below(65536))
                                         : static_cast<std::uint16_t>(random.below(kSize)));
            (void)ring.publish();
            if (random.one_in(200)) ring.available_index(static_cast<std::uint16_t>(random.below(65536)));
            const auto result = queue->pop(chain);
            good += result == PopResult::kChain;
            bad += result == PopResult::kBadChain;
            if (result == PopResult::kChain) {
                check_chain(*queue, ram, chain);
                held.push_back(chain.head);
            }
            if (!held.empty() && !random.one_in(8)) {
                queue->push(held.back(), random.below(100));
                held.pop_back();
            }
            (void)queue->publish();
            (void)queue->enable_notifications();
            BOOST_REQUIRE(queue->in_flight() <= kSize);
        }
        broken += queue->broken();
    }
    // The generator reaches all three ends, or it tests nothing.
    BOOST_TEST(good > 5000u);
    BOOST_TEST(bad > 5000u);
    BOOST_TEST(broken > 500u);
}

BOOST_AUTO_TEST_CASE(descriptors_that_change_under_the_walk_are_used_as_they_were_checked)
{
    const GuestRam ram{kRamBytes};
    DriverRing ring{ram, kRing, kSize};
    auto queue = SplitQueue::create(ram.memory(), ring.layout(), {.indirect = true, .event_index = false});
    BOOST_REQUIRE(queue.ok());

    // The other vCPU turns good descriptors into bad ones and back, as fast as it can.
    std::atomic<bool> stop{false};
    std::thread flipper{[&] {
        std::uint64_t turn = 0;
        while (!stop) {
            for (std::uint16_t i = 0; i < kSize; ++i, ++turn) {
                const bool good = (turn & 1) == 0;
                const auto address = good ? Gpa{0x8000} : Gpa{~std::uint64_t{0} - 4095};
                ring.descriptor(i, address, good ? 64 : 0xffffffff, (turn % 7) < 3 ? fakes::kDescNext : 0,
                                static_cast<std::uint16_t>(turn % 23));
            }
        }
    }};
    Chain chain;
    std::uint64_t good = 0;
    std::uint64_t bad = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{2};
    for (std::uint32_t i = 0; std::chrono::steady_clock::now() < end; ++i) {
        ring.offer(static_cast<std::uint16_t>(i % kSize));
        (void)ring.publish();
        const auto result = queue->pop(chain);
        BOOST_REQUIRE((result == PopResult::kChain || result == PopResult::kBadChain));
        if (result == PopResult::kChain) {
            ++good;
            check_chain(*queue, ram, chain);
            queue->push(chain.head, 0);
        } else {
            ++bad;
        }
        (void)queue->publish();
    }
    stop = true;
    flipper.join();
    BOOST_TEST(good > 100u);
    BOOST_TEST(bad > 100u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::virtio
