#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace splitvisor::controller {

/// Why a request of a user was not fulfilled. `kind` is stable, for programs; the rest is for people.
struct Problem {
    enum class Kind {
        kBadRequest,     ///< the request itself is wrong
        kUnauthorized,   ///< no or a wrong token
        kNotFound,       ///< what was named does not exist
        kMethod,         ///< the path does not know this method
        kTooLarge,       ///< the request's body is too large
        kExists,         ///< the name is taken
        kInUse,          ///< something else uses it
        kWrongState,     ///< not in this state
        kBusy,           ///< another request works on it
        kNoRoom,         ///< no component can take it; reasons say why
        kUnavailable,    ///< a component that is needed is away
        kTimeout,        ///< a component did not answer in time
        kFailed,         ///< a component or the controller failed
    };
    Kind kind = Kind::kFailed;
    std::string detail;                ///< one line, without a final full stop
    std::vector<std::string> reasons;  ///< one line each
};

[[nodiscard]] int http_status(Problem::Kind kind);
[[nodiscard]] std::string_view to_string(Problem::Kind kind);  ///< "no-room"
[[nodiscard]] std::string_view title_of(Problem::Kind kind);   ///< "No component can take it"

/// The problem that a component's or the store's error is for a user.
[[nodiscard]] Problem problem_of(const Error& error);

/// A value or the problem that prevented it.
template <typename T>
class [[nodiscard]] Outcome {
  public:
    Outcome(T value) : state_{std::in_place_index<0>, std::move(value)} {}
    Outcome(Problem problem) : state_{std::in_place_index<1>, std::move(problem)} {}

    [[nodiscard]] bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }
    [[nodiscard]] T& value() { return std::get<0>(state_); }
    [[nodiscard]] const T& value() const { return std::get<0>(state_); }
    T& operator*() { return value(); }
    const T& operator*() const { return value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }
    [[nodiscard]] const Problem& problem() const { return std::get<1>(state_); }

  private:
    std::variant<T, Problem> state_;
};

struct Done {};
using Finished = Outcome<Done>;

}  // namespace splitvisor::controller
