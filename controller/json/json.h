#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace splitvisor::controller {

/// A JSON value. Objects keep the order of their members. Parsing and printing are done by a library behind json.cc, so
/// that including this header costs nothing.
class Json {
  public:
    using Array = std::vector<Json>;
    using Object = std::vector<std::pair<std::string, Json>>;

    static constexpr std::size_t kMaxDepth = 32;

    Json() = default;
    Json(bool value) : value_{value} {}
    Json(std::unsigned_integral auto value) : value_{std::uint64_t{value}} {}
    Json(std::signed_integral auto value)
    {
        if (value < 0) {
            value_ = std::int64_t{value};
        } else {
            value_ = static_cast<std::uint64_t>(value);
        }
    }
    Json(double value) : value_{value} {}
    Json(const char* value) : value_{std::string{value}} {}
    Json(std::string value) : value_{std::move(value)} {}
    Json(std::string_view value) : value_{std::string{value}} {}
    Json(Array value) : value_{std::move(value)} {}
    Json(Object value) : value_{std::move(value)} {}

    static Json object() { return Json{Object{}}; }
    static Json array() { return Json{Array{}}; }
    static Json array_of(const std::vector<std::string>& texts);

    /// Refuses deeper nesting than kMaxDepth and repeated keys. The error names the position.
    static Result<Json> parse(std::string_view text);
    /// On one line, or indented for people. What is not UTF-8 is replaced.
    [[nodiscard]] std::string dump() const;
    [[nodiscard]] std::string pretty() const;

    [[nodiscard]] bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
    [[nodiscard]] const bool* if_bool() const { return std::get_if<bool>(&value_); }
    [[nodiscard]] const std::string* if_string() const { return std::get_if<std::string>(&value_); }
    [[nodiscard]] const Array* if_array() const { return std::get_if<Array>(&value_); }
    [[nodiscard]] const Object* if_object() const { return std::get_if<Object>(&value_); }
    [[nodiscard]] std::optional<std::uint64_t> if_unsigned() const;
    [[nodiscard]] std::optional<double> if_number() const;

    /// The member, or nullptr where this is no object or has none of that name.
    [[nodiscard]] const Json* find(std::string_view key) const;

    /// A member of the wanted type, or the fallback.
    [[nodiscard]] std::string text(std::string_view key, std::string_view fallback = {}) const;
    [[nodiscard]] std::uint64_t number(std::string_view key, std::uint64_t fallback = 0) const;
    [[nodiscard]] std::int64_t integer(std::string_view key, std::int64_t fallback = 0) const;
    [[nodiscard]] bool flag(std::string_view key, bool fallback = false) const;
    /// An array member's elements; empty where there is none.
    [[nodiscard]] const Array& elements(std::string_view key) const;
    [[nodiscard]] std::vector<std::string> texts(std::string_view key) const;

    /// Adds or replaces a member; a null value becomes an object first. Returns *this.
    Json& set(std::string key, Json value);
    /// Appends to an array; a null value becomes one first.
    void push(Json value);

    bool operator==(const Json&) const = default;

    using Value =
        std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, Array, Object>;
    [[nodiscard]] const Value& value() const { return value_; }

  private:
    Value value_;
};

}  // namespace splitvisor::controller
