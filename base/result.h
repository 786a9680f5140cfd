#pragma once

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace splitvisor {

/// What kind of failure it was: callers branch on this, people read the message.
enum class ErrorCode {
    kInvalid,      ///< the input is wrong; trying again will not help
    kNotFound,     ///< what was named does not exist
    kExists,       ///< what should be made is there already
    kNoRoom,       ///< a capacity is exhausted
    kDenied,       ///< the capability or the token does not allow it
    kStale,        ///< an older lease epoch or version
    kUnavailable,  ///< the peer cannot be reached or went away
    kTimeout,      ///< the deadline passed
    kCorrupt,      ///< a checksum or an encoding does not hold
    kUnsupported,  ///< this kernel or this build cannot do it
    kIo,           ///< a system call failed
};

[[nodiscard]] std::string_view to_string(ErrorCode code);

/// A failure caused by a guest, a peer, a file or the kernel. The message is one line, without a final full stop.
class [[nodiscard]] Error {
  public:
    Error(ErrorCode code, std::string message) : code_{code}, message_{std::move(message)} {}

    /// A failed system call: `what` names the call and its object, errno is appended.
    static Error from_errno(std::string_view what, int error_number = errno);

    [[nodiscard]] ErrorCode code() const { return code_; }
    [[nodiscard]] const std::string& message() const { return message_; }

    /// The same failure seen from one level up: "context: message".
    [[nodiscard]] Error in(std::string_view context) const;

  private:
    ErrorCode code_;
    std::string message_;
};

/// A value or the Error that prevented it. Nothing of ours throws.
template <typename T>
class [[nodiscard]] Result {
  public:
    Result(T value) : state_{std::in_place_index<0>, std::move(value)} {}
    Result(Error error) : state_{std::in_place_index<1>, std::move(error)} {}

    [[nodiscard]] bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }

    [[nodiscard]] T& value() & { return std::get<0>(state_); }
    [[nodiscard]] const T& value() const& { return std::get<0>(state_); }
    [[nodiscard]] T&& value() && { return std::get<0>(std::move(state_)); }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    [[nodiscard]] const Error& error() const { return std::get<1>(state_); }

  private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_{std::move(error)} {}

    [[nodiscard]] bool ok() const { return !error_.has_value(); }
    explicit operator bool() const { return ok(); }
    [[nodiscard]] const Error& error() const { return *error_; }

  private:
    std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace splitvisor

/// Returns the error of a Status or Result from the enclosing function, if there is one.
#define SPLITVISOR_TRY(expression)                                       \
    do {                                                                 \
        if (auto status_ = (expression); !status_) return status_.error(); \
    } while (false)
