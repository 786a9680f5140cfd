#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "controller/json/json.h"

namespace splitvisor::vnodectl {

using controller::Json;

struct Answer {
    int status = 0;
    Json body;  ///< null where there is none
};

/// The controller's REST API. Not thread-safe.
class Client {
  public:
    /// `url` is http://HOST:PORT.
    static Result<Client> create(const std::string& url, std::string token);

    /// An answer of any status is no error. A null body sends none.
    [[nodiscard]] Result<Answer> request(const std::string& method, const std::string& path, const Json& body);

    struct ConsoleOptions {
        int input = 0;
        int output = 1;
        std::string detach_key = "\x1d";  ///< Ctrl-]; empty: no key detaches
        std::uint64_t idle_ms = 2000;     ///< detaches when the input has ended and no output came for so long; 0: never
        std::function<void()> attached;   ///< called once the console is attached
    };
    /// Carries bytes between the descriptors and the WebSocket at `path` until either side ends. Returns why it ended.
    [[nodiscard]] Result<std::string> console(const std::string& path, const ConsoleOptions& options);

  private:
    Client(std::string host, std::string port, std::string token)
        : host_{std::move(host)}, port_{std::move(port)}, token_{std::move(token)}
    {
    }
    std::string host_;
    std::string port_;
    std::string token_;
};

/// One line for people from a problem body (RFC 9457), without the reasons.
[[nodiscard]] std::string detail_of(const Answer& answer);

}  // namespace splitvisor::vnodectl
