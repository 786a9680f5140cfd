#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "controller/http/http_server.h"
#include "controller/json/json.h"
#include "controller/vnodes/problem.h"

namespace splitvisor::controller {

/// What a route is given: the parts of the path that its pattern names, and the parsed body (null where it is empty).
struct Call {
    std::map<std::string, std::string, std::less<>> parts;
    Json body;
    [[nodiscard]] const std::string& name() const { return parts.find("name")->second; }
};

/// A status with a JSON body; a null body is none.
struct Reply {
    int status = 200;
    Json body;
};

using RouteHandler = std::function<Outcome<Reply>(const Call& call)>;

struct Route {
    std::string method;
    std::string pattern;  ///< "/v1/vnodes/{name}"
    bool needs_token = true;
    bool is_websocket = false;  ///< served by upgrade(), not by handle()
    RouteHandler handler;
};

/// The parts of `path` that the pattern names, or nothing where it does not match.
[[nodiscard]] std::optional<std::map<std::string, std::string, std::less<>>> match(std::string_view pattern,
                                                                                   std::string_view path);

/// The RFC 9457 form of a problem.
[[nodiscard]] HttpResponse to_response(const Problem& problem);
[[nodiscard]] HttpResponse to_response(const Reply& reply);

}  // namespace splitvisor::controller
