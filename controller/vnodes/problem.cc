#include "controller/vnodes/problem.h"

namespace splitvisor::controller {

int http_status(Problem::Kind kind)
{
    switch (kind) {
    case Problem::Kind::kBadRequest: return 400;
    case Problem::Kind::kUnauthorized: return 401;
    case Problem::Kind::kNotFound: return 404;
    case Problem::Kind::kMethod: return 405;
    case Problem::Kind::kTooLarge: return 413;
    case Problem::Kind::kExists:
    case Problem::Kind::kInUse:
    case Problem::Kind::kWrongState:
    case Problem::Kind::kBusy:
    case Problem::Kind::kNoRoom: return 409;
    case Problem::Kind::kUnavailable: return 503;
    case Problem::Kind::kTimeout: return 504;
    case Problem::Kind::kFailed: return 500;
    }
    return 500;
}

std::string_view to_string(Problem::Kind kind)
{
    switch (kind) {
    case Problem::Kind::kBadRequest: return "bad-request";
    case Problem::Kind::kUnauthorized: return "unauthorized";
    case Problem::Kind::kNotFound: return "not-found";
    case Problem::Kind::kMethod: return "method-not-allowed";
    case Problem::Kind::kTooLarge: return "too-large";
    case Problem::Kind::kExists: return "exists";
    case Problem::Kind::kInUse: return "in-use";
    case Problem::Kind::kWrongState: return "wrong-state";
    case Problem::Kind::kBusy: return "busy";
    case Problem::Kind::kNoRoom: return "no-room";
    case Problem::Kind::kUnavailable: return "unavailable";
    case Problem::Kind::kTimeout: return "timeout";
    case Problem::Kind::kFailed: return "failed";
    }
    return "failed";
}

std::string_view title_of(Problem::Kind kind)
{
    switch (kind) {
    case Problem::Kind::kBadRequest: return "The request is wrong";
    case Problem::Kind::kUnauthorized: return "A valid token is needed";
    case Problem::Kind::kNotFound: return "It does not exist";
    case Problem::Kind::kMethod: return "The path does not know this method";
    case Problem::Kind::kTooLarge: return "The request is too large";
    case Problem::Kind::kExists: return "The name is taken";
    case Problem::Kind::kInUse: return "It is in use";
    case Problem::Kind::kWrongState: return "It is not in a state for this";
    case Problem::Kind::kBusy: return "Another request works on it";
    case Problem::Kind::kNoRoom: return "No component can take it";
    case Problem::Kind::kUnavailable: return "A component is away";
    case Problem::Kind::kTimeout: return "A component did not answer in time";
    case Problem::Kind::kFailed: return "It failed";
    }
    return "It failed";
}

Problem problem_of(const Error& error)
{
    const auto kind = [&error] {
        switch (error.code()) {
        case ErrorCode::kInvalid: return Problem::Kind::kBadRequest;
        case ErrorCode::kNotFound: return Problem::Kind::kNotFound;
        case ErrorCode::kExists: return Problem::Kind::kExists;
        case ErrorCode::kNoRoom: return Problem::Kind::kNoRoom;
        case ErrorCode::kUnavailable: return Problem::Kind::kUnavailable;
        case ErrorCode::kTimeout: return Problem::Kind::kTimeout;
        case ErrorCode::kDenied:
        case ErrorCode::kStale:
        case ErrorCode::kCorrupt:
        case ErrorCode::kUnsupported:
        case ErrorCode::kIo: return Problem::Kind::kFailed;
        }
        return Problem::Kind::kFailed;
    };
    return {kind(), error.message(), {}};
}

}  // namespace splitvisor::controller
