#include "controller/api/router.h"

#include <utility>

namespace splitvisor::controller {

namespace {

/// Takes what is before the next '/' off the front.
std::string_view take_segment(std::string_view& path)
{
    const auto end = path.find('/');
    const std::string_view segment = path.substr(0, end);
    path.remove_prefix(end == std::string_view::npos ? path.size() : end + 1);
    return segment;
}

}  // namespace

std::optional<std::map<std::string, std::string, std::less<>>> match(std::string_view pattern, std::string_view path)
{
    if (!pattern.starts_with('/') || !path.starts_with('/') || path.ends_with('/')) return std::nullopt;
    std::map<std::string, std::string, std::less<>> parts;
    pattern.remove_prefix(1);
    path.remove_prefix(1);
    while (!pattern.empty() && !path.empty()) {
        const std::string_view wanted = take_segment(pattern);
        const std::string_view given = take_segment(path);
        if (wanted.starts_with('{') && wanted.ends_with('}')) {
            if (given.empty()) return std::nullopt;
            parts.emplace(wanted.substr(1, wanted.size() - 2), given);
        } else if (wanted != given) {
            return std::nullopt;
        }
    }
    if (!pattern.empty() || !path.empty()) return std::nullopt;
    return parts;
}

HttpResponse to_response(const Problem& problem)
{
    const int status = http_status(problem.kind);
    HttpResponse response;
    response.status = status;
    response.content_type = "application/problem+json";
    response.body = Json::object()
                        .set("type", "urn:splitvisor:problem:" + std::string{to_string(problem.kind)})
                        .set("title", title_of(problem.kind))
                        .set("status", status)
                        .set("detail", problem.detail)
                        .set("reasons", Json::array_of(problem.reasons))
                        .dump();
    if (problem.kind == Problem::Kind::kUnauthorized) response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
}

HttpResponse to_response(const Reply& reply)
{
    HttpResponse response;
    response.status = reply.status;
    if (!reply.body.is_null()) response.body = reply.body.dump();
    return response;
}

}  // namespace splitvisor::controller
