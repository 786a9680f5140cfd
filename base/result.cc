#include "base/result.h"

#include <system_error>

namespace splitvisor {

std::string_view to_string(ErrorCode code)
{
    switch (code) {
    case ErrorCode::kInvalid: return "invalid";
    case ErrorCode::kNotFound: return "not-found";
    case ErrorCode::kExists: return "exists";
    case ErrorCode::kNoRoom: return "no-room";
    case ErrorCode::kDenied: return "denied";
    case ErrorCode::kStale: return "stale";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kTimeout: return "timeout";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kIo: return "io";
    }
    return "unknown";
}

static ErrorCode code_of_errno(int error_number)
{
    switch (error_number) {
    case ENOENT: return ErrorCode::kNotFound;
    case EEXIST: return ErrorCode::kExists;
    case ENOSPC:
    case ENOMEM: return ErrorCode::kNoRoom;
    case EACCES:
    case EPERM: return ErrorCode::kDenied;
    case ETIMEDOUT: return ErrorCode::kTimeout;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case ENETUNREACH:
    case EHOSTUNREACH: return ErrorCode::kUnavailable;
    case ENOSYS:
    case EOPNOTSUPP: return ErrorCode::kUnsupported;
    default: return ErrorCode::kIo;
    }
}

Error Error::from_errno(std::string_view what, int error_number)
{
    return Error{code_of_errno(error_number),
                 std::string{what} + ": " + std::system_category().message(error_number)};
}

Error Error::in(std::string_view context) const
{
    return Error{code_, std::string{context} + ": " + message_};
}

}  // namespace splitvisor
