#include "controller/vnodectl/client.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <chrono>
#include <cerrno>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "base/thread.h"

namespace splitvisor::vnodectl {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds kConnectTimeout{10};
/// Longer than anything the controller does for one request.
constexpr std::chrono::seconds kRequestTimeout{900};
constexpr std::uint64_t kMaxBodyBytes = 64 * 1024 * 1024;

Error connection_error(const std::string& host, const std::string& port, const error_code& error)
{
    return {ErrorCode::kUnavailable, "controller at " + host + ":" + port + ": " + error.message()};
}

Result<tcp::resolver::results_type> resolve(asio::io_context& io, const std::string& host, const std::string& port)
{
    error_code error;
    tcp::resolver resolver{io};
    auto addresses = resolver.resolve(host, port, error);
    if (error) return connection_error(host, port, error);
    return addresses;
}

/// One request on a connection of its own.
class Exchange {
  public:
    Exchange(asio::io_context& io, http::request<http::string_body> request) : stream_{io}, request_{std::move(request)}
    {
        parser_.body_limit(kMaxBodyBytes);
    }

    error_code run(asio::io_context& io, const tcp::resolver::results_type& addresses)
    {
        stream_.expires_after(kConnectTimeout);
        stream_.async_connect(addresses, [this](error_code error, const tcp::endpoint&) {
            if (!done(error)) write();
        });
        io.run();
        return error_;
    }

    [[nodiscard]] const http::response<http::string_body>& response() const { return parser_.get(); }

  private:
    bool done(error_code error)
    {
        error_ = error;
        return static_cast<bool>(error);
    }

    void write()
    {
        stream_.expires_after(kRequestTimeout);
        http::async_write(stream_, request_, [this](error_code error, std::size_t) {
            if (!done(error)) read();
        });
    }

    void read()
    {
        http::async_read(stream_, buffer_, parser_, [this](error_code error, std::size_t) { done(error); });
    }

    beast::tcp_stream stream_;
    http::request<http::string_body> request_;
    http::response_parser<http::string_body> parser_;
    beast::flat_buffer buffer_;
    error_code error_;
};

/// An attached console. The input is read by a thread of its own, because it may be a file, which no event loop can
/// wait for; all else happens in the event loop.
class Console {
  public:
    Console(asio::io_context& io, const Client::ConsoleOptions& options, EventFd stop)
        : io_{io}, stream_{io}, idle_{io}, options_{options}, stop_{std::move(stop)}
    {
    }

    Result<std::string> run(const tcp::resolver::results_type& addresses, const std::string& host,
                            const std::string& path, const std::string& token)
    {
        error_code error;
        asio::connect(stream_.next_layer(), addresses, error);
        if (error) return connection_error(host, std::to_string(addresses.begin()->endpoint().port()), error);
        stream_.set_option(websocket::stream_base::decorator([&token](websocket::request_type& request) {
            request.set(http::field::authorization, "Bearer " + token);
        }));
        websocket::response_type response;
        stream_.handshake(response, host, path, error);
        if (error) return refusal(response, error);
        stream_.binary(true);
        if (options_.attached) options_.attached();
        read();
        {
            const Thread input{"console-input", [this] { read_input(); }};
            io_.run();
            stop_.signal();
        }
        return reason_;
    }

  private:
    static Error refusal(const websocket::response_type& response, const error_code& error)
    {
        const auto body = Json::parse(response.body());
        const std::string detail = body ? body->text("detail") : std::string{};
        return {ErrorCode::kUnavailable, detail.empty() ? "the console was not opened: " + error.message() : detail};
    }

    void read()
    {
        stream_.async_read(incoming_, [this](error_code error, std::size_t) {
            if (error) return end(error);
            const std::string bytes = beast::buffers_to_string(incoming_.data());
            incoming_.consume(incoming_.size());
            if (!write_all(options_.output, std::as_bytes(std::span{bytes}))) return detach("the output has ended");
            if (input_ended_) watch_idle();
            read();
        });
    }

    void end(const error_code& error)
    {
        if (reason_.empty()) {
            const auto& said = stream_.reason().reason;
            reason_ = !said.empty()                         ? std::string{said.data(), said.size()}
                      : error == websocket::error::closed ? std::string{"closed"}
                                                            : error.message();
        }
        io_.stop();
    }

    void detach(const std::string& reason)
    {
        if (!reason_.empty()) return;
        reason_ = reason;
        idle_.cancel();
        stream_.async_close(websocket::close_code::normal, [this](error_code) { io_.stop(); });
    }

    void watch_idle()
    {
        input_ended_ = true;
        if (options_.idle_ms == 0) return;
        idle_.expires_after(std::chrono::milliseconds{options_.idle_ms});
        idle_.async_wait([this](error_code error) {
            if (!error) detach("the input has ended");
        });
    }

    /// Runs in the input thread; hands over one piece after the other.
    void read_input()
    {
        std::array<char, 4096> buffer{};
        for (;;) {
            std::array<pollfd, 2> polls{{{options_.input, POLLIN, 0}, {stop_.fd(), POLLIN, 0}}};
            if (::poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) return;
            if (polls[1].revents != 0) return;
            const ssize_t size = ::read(options_.input, buffer.data(), buffer.size());
            if (size < 0 && errno == EINTR) continue;
            if (size <= 0) {
                asio::post(io_, [this] { watch_idle(); });
                return;
            }
            std::string_view bytes{buffer.data(), static_cast<std::size_t>(size)};
            const auto key = options_.detach_key.empty() ? std::string_view::npos : bytes.find(options_.detach_key);
            if (!send(std::string{bytes.substr(0, key)})) return;
            if (key != std::string_view::npos) {
                asio::post(io_, [this] { detach("detached"); });
                return;
            }
        }
    }

    /// Waits until the bytes are sent; false where the console has ended.
    bool send(std::string bytes)
    {
        if (bytes.empty()) return true;
        const EventFd& stop = stop_;
        auto sent = EventFd::create();
        if (!sent) return false;
        auto text = std::make_shared<const std::string>(std::move(bytes));
        asio::post(io_, [this, text, &sent] {
            stream_.async_write(asio::buffer(*text), [text, &sent](error_code error, std::size_t) {
                if (!error) sent->signal();
            });
        });
        std::array<pollfd, 2> polls{{{sent->fd(), POLLIN, 0}, {stop.fd(), POLLIN, 0}}};
        while (::poll(polls.data(), polls.size(), -1) < 0 && errno == EINTR) {
        }
        return polls[1].revents == 0;
    }

    asio::io_context& io_;
    websocket::stream<tcp::socket> stream_;
    asio::steady_timer idle_;
    const Client::ConsoleOptions& options_;
    EventFd stop_;
    beast::flat_buffer incoming_;
    std::string reason_;
    bool input_ended_ = false;
};

}  // namespace

Result<Client> Client::create(const std::string& url, std::string token)
{
    constexpr std::string_view kScheme = "http://";
    const Error wrong{ErrorCode::kInvalid, "'" + url + "' is not a controller's address, such as http://127.0.0.1:7770"};
    std::string_view rest = url;
    if (!rest.starts_with(kScheme)) return wrong;
    rest.remove_prefix(kScheme.size());
    if (rest.ends_with('/')) rest.remove_suffix(1);
    const auto colon = rest.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return wrong;
    std::string_view host = rest.substr(0, colon);
    const std::string_view port = rest.substr(colon + 1);
    if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string_view::npos) return wrong;
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (host.empty() || host.find('/') != std::string_view::npos) return wrong;
    return Client{std::string{host}, std::string{port}, std::move(token)};
}

Result<Answer> Client::request(const std::string& method, const std::string& path, const Json& body)
{
    http::request<http::string_body> request;
    request.method_string(method);
    request.target(path);
    request.version(11);
    request.set(http::field::host, host_);
    request.set(http::field::authorization, "Bearer " + token_);
    request.keep_alive(false);
    if (!body.is_null()) {
        request.set(http::field::content_type, "application/json");
        request.body() = body.dump();
    }
    request.prepare_payload();
    asio::io_context io;
    const auto addresses = resolve(io, host_, port_);
    if (!addresses) return addresses.error();
    Exchange exchange{io, std::move(request)};
    if (const error_code error = exchange.run(io, *addresses)) return connection_error(host_, port_, error);
    Answer answer;
    answer.status = exchange.response().result_int();
    if (!exchange.response().body().empty()) {
        auto json = Json::parse(exchange.response().body());
        if (!json) return json.error().in("the controller's answer");
        answer.body = std::move(*json);
    }
    return answer;
}

Result<std::string> Client::console(const std::string& path, const ConsoleOptions& options)
{
    asio::io_context io;
    auto stop = EventFd::create();
    if (!stop) return stop.error();
    const auto addresses = resolve(io, host_, port_);
    if (!addresses) return addresses.error();
    return Console{io, options, std::move(*stop)}.run(*addresses, host_, path, token_);
}

std::string detail_of(const Answer& answer)
{
    const std::string detail = answer.body.text("detail", answer.body.text("title"));
    return detail.empty() ? "the controller answered with status " + std::to_string(answer.status) : detail;
}

}  // namespace splitvisor::vnodectl
