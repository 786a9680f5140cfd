#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/fd.h"

namespace splitvisor::controller {

struct RawResponse {
    int status = 0;  ///< 0: the connection ended instead
    std::string head;
    std::string body;
};

/// A TCP connection to an HTTP server on this machine that sends what a test wants and reads answers.
class RawHttp {
  public:
    explicit RawHttp(std::uint16_t port) : socket_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)}
    {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        BOOST_REQUIRE(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    }

    /// False where the peer has closed.
    bool send(const std::string& bytes)
    {
        std::size_t sent = 0;
        while (sent < bytes.size()) {
            const ssize_t size =
                ::send(socket_.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
            if (size <= 0) return false;
            sent += static_cast<std::size_t>(size);
        }
        return true;
    }
    void end_sending() { ::shutdown(socket_.get(), SHUT_WR); }

    /// One answer; `has_body` is false for an answer to HEAD.
    RawResponse read_response(bool has_body = true)
    {
        RawResponse response;
        std::size_t end = 0;
        while ((end = received_.find("\r\n\r\n")) == std::string::npos) {
            if (!receive()) return response;
        }
        response.head = received_.substr(0, end + 2);
        received_.erase(0, end + 4);
        response.status = std::atoi(response.head.c_str() + response.head.find(' '));
        const auto field = response.head.find("Content-Length: ");
        if (!has_body || field == std::string::npos) return response;
        const auto length = static_cast<std::size_t>(std::atoi(response.head.c_str() + field + 16));
        while (received_.size() < length && receive()) {
        }
        response.body = received_.substr(0, length);
        received_.erase(0, length);
        return response;
    }

    /// True where something can be read without waiting.
    bool has_answer()
    {
        pollfd poll{socket_.get(), POLLIN, 0};
        return !received_.empty() || ::poll(&poll, 1, 0) == 1;
    }

    /// True once the peer has closed, nothing more having come.
    bool is_closed() { return received_.empty() && !receive(); }

  private:
    bool receive()
    {
        pollfd poll{socket_.get(), POLLIN, 0};
        BOOST_REQUIRE_MESSAGE(::poll(&poll, 1, 60'000) == 1, "the server neither answers nor closes");
        std::array<char, 4096> buffer{};
        const ssize_t size = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
        if (size <= 0) return false;
        received_.append(buffer.data(), static_cast<std::size_t>(size));
        return true;
    }

    Fd socket_;
    std::string received_;
};

}  // namespace splitvisor::controller
