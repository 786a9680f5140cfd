#include "controller/http/http_server.h"

#include <atomic>
#include <future>
#include <vector>

#include "tests/unit/controller/checks.h"
#include "tests/unit/controller/raw_http.h"

namespace splitvisor::controller {

namespace {

/// Says what it was asked; "/wait" is answered when the test lets it.
class FakeHandler final : public HttpHandler {
  public:
    HttpResponse handle(const HttpRequest& request) override
    {
        ++handled;
        if (request.path == "/wait") go.get_future().wait();
        HttpResponse response;
        response.body = request.method + " " + request.path + " [" + request.authorization + "] " +
                        std::to_string(request.body.size());
        if (request.path == "/empty") response = {204, "application/json", {}, {}};
        return response;
    }
    std::variant<std::shared_ptr<BytePipe>, HttpResponse> upgrade(const HttpRequest&) override
    {
        return HttpResponse{409, "application/json", "no console", {}};
    }
    std::atomic<int> handled = 0;
    std::promise<void> go;
};

class Serving {
  public:
    explicit Serving(HttpServerOptions options = {})
    {
        auto server = start_http_server(options, handler);
        require_ok(server);
        server_ = std::move(*server);
    }
    [[nodiscard]] RawHttp connect() const { return RawHttp{server_->port()}; }
    [[nodiscard]] RawResponse ask(const std::string& request) const
    {
        RawHttp connection = connect();
        static_cast<void>(connection.send(request));
        return connection.read_response();
    }
    void stop() { server_.reset(); }

    FakeHandler handler;

  private:
    std::unique_ptr<HttpServer> server_;
};

const std::string kHost = "Host: 127.0.0.1\r\n";

}  // namespace

BOOST_AUTO_TEST_SUITE(http_server)

BOOST_AUTO_TEST_CASE(requests_of_one_connection_are_answered_in_turn)
{
    const Serving serving;
    RawHttp connection = serving.connect();
    BOOST_REQUIRE(connection.send("GET /a?query=1 HTTP/1.1\r\n" + kHost +
                                  "Authorization: Bearer x\r\n\r\nPOST /b HTTP/1.1\r\n" + kHost +
                                  "Content-Length: 3\r\n\r\n123"));
    const auto first = connection.read_response();
    BOOST_TEST(first.status == 200);
    BOOST_TEST(first.body == "GET /a [Bearer x] 0");
    BOOST_TEST(contains(first.head, "Cache-Control: no-store"));
    BOOST_TEST(connection.read_response().body == "POST /b [] 3");
    BOOST_REQUIRE(connection.send("POST /c HTTP/1.1\r\n" + kHost +
                                  "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    BOOST_TEST(connection.read_response().body == "POST /c [] 5");
    BOOST_REQUIRE(connection.send("DELETE /empty HTTP/1.1\r\n" + kHost + "\r\n"));
    BOOST_TEST(connection.read_response().status == 204);
    BOOST_REQUIRE(connection.send("GET /d HTTP/1.1\r\n" + kHost + "Connection: close\r\n\r\n"));
    BOOST_TEST(connection.read_response().body == "GET /d [] 0");
    BOOST_TEST(connection.is_closed());
}

// A body behind the answer to HEAD would be taken for the next answer.
BOOST_AUTO_TEST_CASE(an_answer_to_head_has_no_body)
{
    const Serving serving;
    RawHttp connection = serving.connect();
    BOOST_REQUIRE(
        connection.send("HEAD /a HTTP/1.1\r\n" + kHost + "\r\nGET /b HTTP/1.1\r\n" + kHost + "\r\n"));
    const auto head = connection.read_response(false);
    BOOST_TEST(head.status == 200);
    BOOST_TEST(contains(head.head, "Content-Length: 12\r\n"), head.head);
    BOOST_TEST(connection.read_response().body == "GET /b [] 0");
}

BOOST_AUTO_TEST_CASE(what_is_no_request_is_answered_with_400)
{
    Serving serving;
    for (const std::string& nonsense :
         {std::string{"hello\r\n\r\n"}, std::string{"GET /a b HTTP/1.1\r\n\r\n"},
          std::string{"GET / HTTP/9.9\r\n\r\n"}, std::string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
          std::string{"\x16\x03\x01\x02\x00\x01\r\n\r\n", 10}, std::string{"GET / HTTP/1.1\r\nHost\r\n\r\n"},
          std::string{"GET / HTTP/1.1\r\nA: \x01\r\n\r\n"},
          "POST / HTTP/1.1\r\n" + kHost + "Content-Length: -1\r\n\r\n",
          "POST / HTTP/1.1\r\n" + kHost + "Content-Length: 99999999999999999999\r\n\r\n",
          "POST / HTTP/1.1\r\n" + kHost + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n12",
          "POST / HTTP/1.1\r\n" + kHost + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
          "POST / HTTP/1.1\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
          "GET / HTTP/1.1\r\n" + kHost + "A: " + std::string(20'000, 'a') + "\r\n\r\n",
          "GET /" + std::string(20'000, 'a') + " HTTP/1.1\r\n" + kHost + "\r\n"}) {
        RawHttp connection = serving.connect();
        static_cast<void>(connection.send(nonsense));
        const auto response = connection.read_response();
        BOOST_TEST(response.status == 400, nonsense.substr(0, 60));
        BOOST_TEST(contains(response.body, "urn:splitvisor:problem:bad-request"));
        BOOST_TEST(connection.is_closed());
    }
    BOOST_TEST(serving.handler.handled == 0);
    BOOST_TEST(serving.ask("GET /a HTTP/1.1\r\n" + kHost + "\r\n").status == 200,
               "the others are not disturbed");
}

// The answer must arrive even though the rest of the body is still on its way.
BOOST_AUTO_TEST_CASE(a_large_body_is_answered_with_413)
{
    Serving serving{{.max_body_bytes = 100'000}};
    const auto post = [](std::size_t size) {
        return "POST /a HTTP/1.1\r\n" + kHost + "Content-Length: " + std::to_string(size) + "\r\n\r\n" +
               std::string(size, 'x');
    };
    BOOST_TEST(serving.ask(post(100'000)).body == "POST /a [] 100000");
    for (const std::size_t size : {std::size_t{100'001}, std::size_t{3'000'000}}) {
        for (int round = 0; round < 20; ++round) {
            const auto response = serving.ask(post(size));
            BOOST_REQUIRE(response.status == 413);
            BOOST_TEST(contains(response.body, "urn:splitvisor:problem:too-large"));
        }
    }
    std::string chunked = "POST /a HTTP/1.1\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\n";
    for (int i = 0; i < 20; ++i) chunked += "2710\r\n" + std::string(10'000, 'x') + "\r\n";
    BOOST_TEST(serving.ask(chunked + "0\r\n\r\n").status == 413);
    BOOST_TEST(serving.handler.handled == 1);
}

BOOST_AUTO_TEST_CASE(slow_requests_have_their_time_and_no_more)
{
    Serving serving{{.read_ms = 300}};
    RawHttp silent = serving.connect();
    RawHttp half = serving.connect();
    RawHttp bodyless = serving.connect();
    static_cast<void>(half.send("GET /a HTTP/1.1\r\nHost: "));
    static_cast<void>(bodyless.send("POST /a HTTP/1.1\r\n" + kHost + "Content-Length: 10\r\n\r\n12"));
    // Each byte is in time, the whole is not.
    RawHttp dripping = serving.connect();
    BOOST_TEST(eventually([&] { return !dripping.send("x"); }));
    BOOST_TEST(silent.is_closed());
    BOOST_TEST(half.is_closed());
    BOOST_TEST(bodyless.is_closed());
    BOOST_TEST(serving.handler.handled == 0);
}

BOOST_AUTO_TEST_CASE(a_peer_that_goes_in_the_middle_disturbs_nobody)
{
    Serving serving;
    for (int i = 0; i < 200; ++i) {
        RawHttp connection = serving.connect();
        if (i % 2 == 0) static_cast<void>(connection.send("POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n12"));
    }
    RawHttp ended = serving.connect();
    BOOST_REQUIRE(ended.send("GET /a HTTP/1.1\r\n" + kHost + "\r\n"));
    ended.end_sending();
    BOOST_TEST(ended.read_response().body == "GET /a [] 0", "it can still listen");
    BOOST_TEST(ended.is_closed());
}

BOOST_AUTO_TEST_CASE(connections_and_waiting_requests_are_bounded)
{
    Serving serving{{.workers = 1, .max_waiting = 1, .max_connections = 4}};
    RawHttp working = serving.connect();
    BOOST_REQUIRE(working.send("GET /wait HTTP/1.1\r\n" + kHost + "\r\n"));
    BOOST_REQUIRE(eventually([&] { return serving.handler.handled == 1; }));
    RawHttp one = serving.connect();
    RawHttp two = serving.connect();
    BOOST_REQUIRE(one.send("GET /one HTTP/1.1\r\n" + kHost + "\r\n"));
    BOOST_REQUIRE(two.send("GET /two HTTP/1.1\r\n" + kHost + "\r\n"));
    // One of the two waits, the other is sent away; which one is not said.
    BOOST_REQUIRE(eventually([&] { return one.has_answer() || two.has_answer(); }));
    RawHttp three = serving.connect();
    BOOST_REQUIRE(three.send("GET /three HTTP/1.1\r\n" + kHost + "\r\n"));
    BOOST_TEST(three.read_response().status == 503);
    RawHttp stranger = serving.connect();
    BOOST_TEST(stranger.is_closed());
    serving.handler.go.set_value();
    BOOST_TEST(working.read_response().status == 200);
    const int first = one.read_response().status;
    const int second = two.read_response().status;
    BOOST_TEST(std::min(first, second) == 200);
    BOOST_TEST(std::max(first, second) == 503);
}

BOOST_AUTO_TEST_CASE(an_upgrade_that_is_refused_is_an_answer)
{
    const Serving serving;
    const auto response =
        serving.ask("GET /c HTTP/1.1\r\n" + kHost +
                    "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
    BOOST_TEST(response.status == 409);
    BOOST_TEST(response.body == "no console");
}

BOOST_AUTO_TEST_CASE(a_server_ends_while_peers_are_connected)
{
    Serving serving;
    std::vector<std::unique_ptr<RawHttp>> peers;
    for (int i = 0; i < 20; ++i) peers.push_back(std::make_unique<RawHttp>(serving.connect()));
    for (std::size_t i = 0; i < 10; ++i) BOOST_REQUIRE(peers[i]->send("GET /a HTT"));
    BOOST_TEST(serving.ask("GET /a HTTP/1.1\r\n" + kHost + "\r\n").status == 200);
    serving.stop();
    for (const auto& peer : peers) BOOST_TEST(peer->is_closed());
}

BOOST_AUTO_TEST_CASE(an_address_that_cannot_be_had_is_an_error)
{
    FakeHandler handler;
    check_code(start_http_server({.address = "localhost"}, handler), ErrorCode::kInvalid);
    check_code(start_http_server({.address = "192.0.2.1"}, handler), ErrorCode::kIo);
    const auto first = start_http_server({}, handler);
    require_ok(first);
    check_code(start_http_server({.port = (*first)->port()}, handler), ErrorCode::kIo);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::controller
