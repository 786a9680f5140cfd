#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "controller/console/byte_pipe.h"

namespace splitvisor::controller {

struct HttpRequest {
    std::string method;         ///< "GET"
    std::string path;           ///< "/v1/vnodes/n1", without the query
    std::string authorization;  ///< the header's value
    std::string body;
};

struct HttpResponse {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;
};

/// What the server serves. Called by several threads at once; may wait.
class HttpHandler {
  public:
    virtual ~HttpHandler() = default;
    virtual HttpResponse handle(const HttpRequest& request) = 0;
    /// A request to become a WebSocket of binary messages: the pipe whose user side it is, or a refusal.
    virtual std::variant<std::shared_ptr<BytePipe>, HttpResponse> upgrade(const HttpRequest& request) = 0;
};

struct HttpServerOptions {
    std::string address = "127.0.0.1";
    std::uint16_t port = 0;        ///< 0: the kernel chooses
    std::size_t workers = 16;      ///< requests that may wait for components at the same time
    std::size_t max_waiting = 256; ///< further ones that wait for a worker; then 503
    std::size_t max_connections = 1024;
    std::uint64_t max_body_bytes = 1024 * 1024;
    std::uint64_t read_ms = 60'000;  ///< for a whole request to arrive, and for an answer to leave
};

/// An HTTP/1.1 server with WebSockets.
class HttpServer {
  public:
    virtual ~HttpServer() = default;  ///< ends all connections; waits for the requests being handled
    [[nodiscard]] virtual std::uint16_t port() const = 0;
};

Result<std::unique_ptr<HttpServer>> start_http_server(const HttpServerOptions& options, HttpHandler& handler);

}  // namespace splitvisor::controller
