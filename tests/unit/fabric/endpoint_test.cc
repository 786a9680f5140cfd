#include <boost/test/unit_test.hpp>

#include "fabric/connection.h"

namespace splitvisor::fabric {

BOOST_AUTO_TEST_SUITE(endpoint)

BOOST_AUTO_TEST_CASE(reads_what_it_writes)
{
    for (const std::string text :
         {"tcp:127.0.0.1:7801", "tcp:host-1.example:0", "tcp:[::1]:65535", "unix:/run/m1.sock", "shm:/run/m1.sock",
          "rdma:10.77.0.1:7801", "rdma:[fe80::1]:0"}) {
        const auto parsed = Endpoint::parse(text);
        BOOST_REQUIRE_MESSAGE(parsed.ok(), text);
        BOOST_TEST(parsed->to_string() == text);
        BOOST_TEST((*Endpoint::parse(parsed->to_string()) == *parsed));
    }
}

BOOST_AUTO_TEST_CASE(takes_tcp_for_granted)
{
    const auto parsed = Endpoint::parse("localhost:80");
    BOOST_REQUIRE(parsed.ok());
    BOOST_TEST((parsed->scheme == Endpoint::Scheme::kTcp));
    BOOST_TEST(parsed->host == "localhost");
    BOOST_TEST(parsed->port == 80);
    BOOST_TEST(Endpoint::parse("tcp:[fe80::1]:9")->host == "fe80::1");
}

BOOST_AUTO_TEST_CASE(refuses_nonsense)
{
    const std::string long_path(200, 'a');
    const std::string long_host(300, 'a');
    for (const std::string& text : {std::string{},
                                    std::string{"tcp:"},
                                    std::string{"tcp:host"},
                                    std::string{":80"},
                                    std::string{"host:"},
                                    std::string{"host:65536"},
                                    std::string{"host:-1"},
                                    std::string{"host:8x"},
                                    std::string{"::1:80"},
                                    std::string{"ho st:80"},
                                    std::string{"a/b:80"},
                                    std::string{"unix:"},
                                    std::string{"unix:relative"},
                                    std::string{"shm:"},
                                    std::string{"shm:relative"},
                                    std::string{"shm:/a\0b", 8},
                                    "shm:/" + long_path,
                                    "unix:/" + long_path,
                                    long_host + ":1",
                                    std::string{"host\0x:80", 9},
                                    std::string{"unix:/a\0b", 9},
                                    std::string{"[::1:80"},
                                    std::string{"[]:80"},
                                    std::string{"rdma:host"},
                                    std::string{"rdma:"},
                                    std::string{"rdma:host:65536"},
                                    std::string{"rdma:::1:80"}}) {
        const auto parsed = Endpoint::parse(text);
        BOOST_TEST(!parsed.ok(), text);
        if (!parsed) BOOST_TEST((parsed.error().code() == ErrorCode::kInvalid));
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::fabric
