#pragma once

#include <boost/test/unit_test.hpp>
#include <optional>
#include <thread>

#include "fabric/connection.h"

namespace splitvisor::fabric {

inline Endpoint endpoint_of(std::string_view text)
{
    return Endpoint::parse(text).value();
}

/// Port 0 becomes one that nobody has, and can't be listened at twice.
inline void check_chosen_ports(const Endpoint& any_port)
{
    const auto first = listen(any_port);
    const auto second = listen(any_port);
    BOOST_REQUIRE(first.ok());
    BOOST_REQUIRE(second.ok());
    BOOST_TEST((*first)->endpoint().port != 0);
    BOOST_TEST((*first)->endpoint().port != (*second)->endpoint().port);
    BOOST_TEST(!listen((*first)->endpoint()).ok(), "a port has one listener");
}

inline void check_shutdown_ends_accept(const Endpoint& endpoint)
{
    const auto door = listen(endpoint);
    BOOST_REQUIRE(door.ok());
    std::optional<ErrorCode> code;
    std::thread server{[&] { code = (*door)->accept().error().code(); }};
    std::this_thread::sleep_for(std::chrono::milliseconds{30});
    (*door)->shutdown();
    server.join();
    BOOST_TEST((code == ErrorCode::kUnavailable));
    BOOST_TEST((((*door)->accept()).error().code() == ErrorCode::kUnavailable));
}

}  // namespace splitvisor::fabric
