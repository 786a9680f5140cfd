#include "controller/http/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/thread.h"
#include "controller/http/worker_pool.h"

namespace splitvisor::controller {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::size_t kMaxHeaderBytes = 16 * 1024;
/// What is still read of a connection that is being closed.
constexpr std::chrono::seconds kDrainTimeout{5};
constexpr std::size_t kMaxDrainBytes = 16 * 1024 * 1024;
/// Out of descriptors, say: accepting again at once would only burn a processor.
constexpr std::chrono::milliseconds kAcceptPause{100};

HttpResponse plain_problem(int status, const std::string& kind, const std::string& title)
{
    return {status, "application/problem+json",
            R"({"type":"urn:splitvisor:problem:)" + kind + R"(","title":")" + title + R"(","status":)" +
                std::to_string(status) + R"(,"detail":")" + title + R"(","reasons":[]})",
            {}};
}

/// True where the peer sent something, but no request.
bool is_malformed(const error_code& error)
{
    return error.category() == http::make_error_code(http::error::bad_version).category() &&
           error != http::error::end_of_stream;
}

/// What all connections share.
struct Shared {
    HttpHandler& handler;
    const HttpServerOptions options;
    WorkerPool workers;
    std::atomic<std::size_t> connections = 0;
};

/// A user's WebSocket as an end of a pipe. All members are used on the connection's strand only.
class WebSocketEnd final : public ByteEnd, public std::enable_shared_from_this<WebSocketEnd> {
  public:
    WebSocketEnd(beast::tcp_stream stream, std::shared_ptr<BytePipe> pipe)
        : stream_{std::move(stream)}, pipe_{std::move(pipe)}
    {
    }

    void start(const http::request<http::string_body>& request)
    {
        beast::get_lowest_layer(stream_).expires_never();
        stream_.set_option(websocket::stream_base::timeout::suggested(beast::role_type::server));
        stream_.binary(true);
        stream_.read_message_max(256 * 1024);
        stream_.async_accept(request, [self = shared_from_this()](error_code error) {
            if (error) return self->pipe_->close("the WebSocket was not opened");
            self->pipe_->attach(BytePipe::Side::kUser, self);
            self->read();
        });
    }

    void deliver(std::string bytes, std::function<void()> taken) override
    {
        asio::post(stream_.get_executor(),
                   [self = shared_from_this(), bytes = std::move(bytes), taken = std::move(taken)]() mutable {
                       self->write(std::move(bytes), std::move(taken));
                   });
    }

    void close(const std::string& reason) override
    {
        asio::post(stream_.get_executor(), [self = shared_from_this(), reason] {
            self->closing_ = reason;
            if (!self->writing_) self->send_close();
        });
    }

  private:
    void read()
    {
        stream_.async_read(incoming_, [self = shared_from_this()](error_code error, std::size_t) {
            if (error) return self->pipe_->close("the user has detached");
            std::string bytes = beast::buffers_to_string(self->incoming_.data());
            self->incoming_.consume(self->incoming_.size());
            self->pipe_->pass(BytePipe::Side::kUser, std::move(bytes), [self] {
                asio::post(self->stream_.get_executor(), [self] { self->read(); });
            });
        });
    }

    void write(std::string bytes, std::function<void()> taken)
    {
        if (closing_) return;
        outgoing_ = std::move(bytes);
        writing_ = true;
        stream_.async_write(asio::buffer(outgoing_),
                            [self = shared_from_this(), taken = std::move(taken)](error_code error, std::size_t) {
                                self->writing_ = false;
                                if (error) return self->pipe_->close("the user has gone");
                                if (self->closing_) return self->send_close();
                                taken();
                            });
    }

    void send_close()
    {
        const std::string text = closing_->substr(0, 120);
        stream_.async_close({websocket::close_code::normal, text}, [self = shared_from_this()](error_code) {});
    }

    websocket::stream<beast::tcp_stream> stream_;
    const std::shared_ptr<BytePipe> pipe_;
    beast::flat_buffer incoming_;
    std::string outgoing_;
    std::optional<std::string> closing_;
    bool writing_ = false;
};

/// One HTTP connection, on a strand of its own.
class Connection final : public std::enable_shared_from_this<Connection> {
  public:
    Connection(tcp::socket socket, std::shared_ptr<Shared> shared)
        : stream_{std::move(socket)}, shared_{std::move(shared)}
    {
        ++shared_->connections;
    }
    ~Connection() { --shared_->connections; }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    void start()
    {
        asio::dispatch(stream_.get_executor(), [self = shared_from_this()] { self->read(); });
    }

  private:
    void read()
    {
        parser_.emplace();
        parser_->body_limit(shared_->options.max_body_bytes);
        parser_->header_limit(kMaxHeaderBytes);
        is_head_ = false;
        stream_.expires_after(patience());
        http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
            if (!error) return self->dispatch();
            self->close_after_ = true;
            if (error == http::error::body_limit) {
                self->respond(plain_problem(413, "too-large", "The request is too large"));
            } else if (is_malformed(error)) {
                self->respond(plain_problem(400, "bad-request", "The request is wrong"));
            } else {
                self->shut_down();
            }
        });
    }

    void dispatch()
    {
        stream_.expires_never();
        auto message = std::make_shared<http::request<http::string_body>>(parser_->release());
        const bool is_upgrade = websocket::is_upgrade(*message);
        close_after_ = !message->keep_alive();
        version_ = message->version();
        is_head_ = message->method() == http::verb::head;
        const bool taken = shared_->workers.add([self = shared_from_this(), message, is_upgrade] {
            const std::string_view target{message->target().data(), message->target().size()};
            const auto authorization = (*message)[http::field::authorization];
            const HttpRequest request{std::string{message->method_string()},
                                      std::string{target.substr(0, target.find('?'))},
                                      {authorization.data(), authorization.size()},
                                      is_upgrade ? std::string{} : message->body()};
            if (is_upgrade) {
                self->answer_upgrade(*message, self->shared_->handler.upgrade(request));
            } else {
                self->answer(self->shared_->handler.handle(request));
            }
        });
        if (!taken) respond(plain_problem(503, "unavailable", "Too many requests wait"));
    }

    /// Called by a worker.
    void answer(HttpResponse response)
    {
        asio::post(stream_.get_executor(), [self = shared_from_this(), response = std::move(response)]() mutable {
            self->respond(std::move(response));
        });
    }

    /// Called by a worker.
    void answer_upgrade(http::request<http::string_body> message,
                        std::variant<std::shared_ptr<BytePipe>, HttpResponse> outcome)
    {
        if (auto* refusal = std::get_if<HttpResponse>(&outcome)) return answer(std::move(*refusal));
        auto pipe = std::get<std::shared_ptr<BytePipe>>(std::move(outcome));
        asio::post(stream_.get_executor(), [self = shared_from_this(), message = std::move(message), pipe] {
            std::make_shared<WebSocketEnd>(std::move(self->stream_), pipe)->start(message);
        });
    }

    void respond(HttpResponse response)
    {
        auto message = std::make_shared<http::response<http::string_body>>(
            static_cast<http::status>(response.status), version_);
        message->set(http::field::content_type, response.content_type);
        message->set(http::field::cache_control, "no-store");
        for (const auto& [name, value] : response.headers) message->set(name, value);
        message->body() = std::move(response.body);
        message->keep_alive(!close_after_);
        message->prepare_payload();
        // A client takes what follows the answer to HEAD for the next answer.
        if (is_head_) message->body().clear();
        stream_.expires_after(patience());
        http::async_write(stream_, *message, [self = shared_from_this(), message](error_code error, std::size_t) {
            if (error || self->close_after_) return self->shut_down();
            self->read();
        });
    }

    [[nodiscard]] std::chrono::milliseconds patience() const
    {
        return std::chrono::milliseconds{shared_->options.read_ms};
    }

    void shut_down()
    {
        error_code ignored;
        stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
        buffer_.clear();
        stream_.expires_after(kDrainTimeout);
        drain(0);
    }

    /// Reads what the peer still sends: if we closed before, the kernel would reset the connection, and the peer could
    /// lose our answer.
    void drain(std::size_t drained)
    {
        stream_.async_read_some(buffer_.prepare(4096),
                                [self = shared_from_this(), drained](error_code error, std::size_t size) {
                                    if (!error && drained + size < kMaxDrainBytes) self->drain(drained + size);
                                });
    }

    beast::tcp_stream stream_;
    const std::shared_ptr<Shared> shared_;
    beast::flat_buffer buffer_;
    std::optional<http::request_parser<http::string_body>> parser_;
    unsigned version_ = 11;
    bool close_after_ = false;
    bool is_head_ = false;
};

class BeastServer final : public HttpServer {
  public:
    BeastServer(const HttpServerOptions& options, HttpHandler& handler)
        : shared_{new Shared{handler, options, WorkerPool{options.workers, options.max_waiting}}}, acceptor_{io_}, pause_{io_}
    {
    }

    ~BeastServer() override
    {
        shared_->workers.stop();
        io_.stop();
        thread_.join();
    }

    Status start()
    {
        error_code error;
        const auto address = asio::ip::make_address(shared_->options.address, error);
        const std::string where = shared_->options.address + ":" + std::to_string(shared_->options.port);
        if (error) return Error{ErrorCode::kInvalid, "'" + shared_->options.address + "' is not an IP address"};
        const tcp::endpoint endpoint{address, shared_->options.port};
        acceptor_.open(endpoint.protocol(), error);
        if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
        if (!error) acceptor_.bind(endpoint, error);
        if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
        if (error) return Error{ErrorCode::kIo, "cannot listen on " + where + ": " + error.message()};
        port_ = acceptor_.local_endpoint(error).port();
        accept();
        thread_ = Thread{"http", [this] { io_.run(); }};
        return {};
    }

    [[nodiscard]] std::uint16_t port() const override { return port_; }

  private:
    void accept()
    {
        acceptor_.async_accept(asio::make_strand(io_), [this](error_code error, tcp::socket socket) {
            if (!error && shared_->connections < shared_->options.max_connections) {
                error_code ignored;
                socket.set_option(tcp::no_delay(true), ignored);
                std::make_shared<Connection>(std::move(socket), shared_)->start();
            }
            if (!error) return accept();
            pause_.expires_after(kAcceptPause);
            pause_.async_wait([this](error_code) { accept(); });
        });
    }

    const std::shared_ptr<Shared> shared_;
    asio::io_context io_;
    tcp::acceptor acceptor_;
    asio::steady_timer pause_;
    std::uint16_t port_ = 0;
    Thread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> start_http_server(const HttpServerOptions& options, HttpHandler& handler)
{
    auto server = std::make_unique<BeastServer>(options, handler);
    SPLITVISOR_TRY(server->start());
    return std::unique_ptr<HttpServer>{std::move(server)};
}

}  // namespace splitvisor::controller
