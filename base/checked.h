#pragma once

#include <concepts>
#include <optional>
#include <utility>

#include "base/log.h"

namespace splitvisor {

/// a + b for outside values, or nothing where the sum does not fit.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> checked_add(T a, T b)
{
    T sum{};
    if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
    return sum;
}

/// a * b for outside values, or nothing where the product does not fit.
template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b)
{
    T product{};
    if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
    return product;
}

/// A conversion that must keep the value; one that would not is a bug of ours.
template <std::integral To, std::integral From>
[[nodiscard]] constexpr To narrow(From value)
{
    SPLITVISOR_CHECK(std::in_range<To>(value));
    return static_cast<To>(value);
}

}  // namespace splitvisor
