#pragma once

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/result.h"
#include "controller/vnodes/problem.h"

namespace splitvisor::controller {

/// Waits for a condition, as long as a busy machine may take.
inline bool eventually(const std::function<bool()>& condition)
{
    const auto deadline_ms = now_ms() + 30'000;
    while (now_ms() < deadline_ms) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
    return false;
}

template <typename R>
void require_ok(const R& result)
{
    BOOST_REQUIRE_MESSAGE(result.ok(), (result.ok() ? "" : result.error().message()));
}

template <typename T>
void require_done(const Outcome<T>& outcome)
{
    BOOST_REQUIRE_MESSAGE(outcome.ok(), (outcome.ok() ? "" : outcome.problem().detail));
}

template <typename R>
void check_code(const R& result, ErrorCode expected)
{
    BOOST_REQUIRE(!result.ok());
    BOOST_CHECK_MESSAGE(result.error().code() == expected, to_string(result.error().code())
                                                               << ": " << result.error().message());
}

template <typename T>
void check_kind(const Outcome<T>& outcome, Problem::Kind expected)
{
    BOOST_REQUIRE(!outcome.ok());
    BOOST_CHECK_MESSAGE(outcome.problem().kind == expected, to_string(outcome.problem().kind)
                                                                << ": " << outcome.problem().detail);
}

inline bool contains(const std::string& text, const std::string& part)
{
    return text.find(part) != std::string::npos;
}

}  // namespace splitvisor::controller
