#include <boost/test/unit_test.hpp>
#include <thread>

#include "tests/fakes/memory_page_store.h"
#include "tests/unit/remote-mem/pages.h"

namespace splitvisor::remote_mem {

// The fake that other rooms test against keeps the rules of the real store.
BOOST_AUTO_TEST_SUITE(memory_page_store)

BOOST_AUTO_TEST_CASE(keeps_the_rules_of_versions)
{
    fakes::MemoryPageStore store;
    auto session = std::move(store.open_session()).value();
    BOOST_TEST(!read_page(*session, 1).present);
    BOOST_TEST((read_page(*session, 1).page[0] == std::byte{0xee}), "absent pages stay untouched");
    BOOST_TEST(write_page(*session, 1, 10).ok());
    BOOST_TEST(write_page(*session, 1, 9).ok());
    BOOST_TEST(holds(*session, 1, 10));
    const Line line{1};
    BOOST_TEST(session->drop({&line, 1}, Version{20}).ok());
    BOOST_TEST(write_page(*session, 1, 15).ok());
    BOOST_TEST(!read_page(*session, 1).present);
    BOOST_TEST(store.counts().stale_pages == 2u);
    BOOST_TEST(store.history(line).size() == 2u);
    BOOST_TEST(!store.contents(line).has_value());
}

BOOST_AUTO_TEST_CASE(fails_as_ordered)
{
    fakes::MemoryPageStore store;
    auto session = std::move(store.open_session()).value();
    store.fail_next(2, ErrorCode::kTimeout);
    BOOST_TEST((write_page(*session, 1, 1).error().code() == ErrorCode::kTimeout));
    BOOST_TEST((write_page(*session, 1, 1).error().code() == ErrorCode::kTimeout));
    BOOST_TEST(store.present_pages() == 0u);
    store.lose_acknowledgements(1);
    BOOST_TEST((write_page(*session, 1, 1).error().code() == ErrorCode::kUnavailable));
    BOOST_TEST(store.present_pages() == 1u);
    BOOST_TEST(write_page(*session, 1, 1).ok());
    BOOST_TEST(store.counts().repeated_pages == 1u);
    BOOST_TEST(store.counts().failed_calls == 3u);
}

BOOST_AUTO_TEST_CASE(blocks_at_its_gate)
{
    fakes::MemoryPageStore store;
    auto session = std::move(store.open_session()).value();
    store.block();
    std::atomic<bool> returned{false};
    std::thread writer{[&] {
        SPLITVISOR_CHECK(write_page(*session, 1, 1).ok());
        returned = true;
    }};
    const bool blocked = store.wait_for_blocked(1, std::chrono::seconds{5});
    const bool early = returned;
    store.unblock();
    writer.join();
    BOOST_TEST(blocked);
    BOOST_TEST(!early);
    BOOST_TEST(store.present_pages() == 1u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::remote_mem
