#include "controller/json/json.h"

#include <nlohmann/json.hpp>

namespace splitvisor::controller {

namespace {

/// Builds a Json from the library's parse events; nothing is built by the library itself.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
  public:
    [[nodiscard]] Json take() { return std::move(root_); }
    [[nodiscard]] const std::string& problem() const { return problem_; }

    bool null() override { return add(Json{}); }
    bool boolean(bool value) override { return add(Json{value}); }
    bool number_integer(std::int64_t value) override { return add(Json{value}); }
    bool number_unsigned(std::uint64_t value) override { return add(Json{value}); }
    bool number_float(double value, const std::string&) override { return add(Json{value}); }
    bool string(std::string& value) override { return add(Json{std::move(value)}); }
    bool binary(nlohmann::json::binary_t&) override { return fail("binary data"); }
    bool start_object(std::size_t) override { return open(Json::object()); }
    bool start_array(std::size_t) override { return open(Json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }

    bool key(std::string& name) override
    {
        if (open_.back().value.find(name) != nullptr) return fail("the key '" + name + "' appears twice");
        open_.back().key = std::move(name);
        return true;
    }

    bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override
    {
        return fail("not valid JSON at byte " + std::to_string(position));
    }

  private:
    struct Open {
        Json value;
        std::string key;
    };

    bool fail(std::string problem)
    {
        problem_ = std::move(problem);
        return false;
    }

    bool open(Json value)
    {
        if (open_.size() >= Json::kMaxDepth) return fail("nested too deeply");
        open_.push_back({std::move(value), {}});
        return true;
    }

    bool close()
    {
        Json value = std::move(open_.back().value);
        open_.pop_back();
        return add(std::move(value));
    }

    bool add(Json value)
    {
        if (open_.empty()) {
            root_ = std::move(value);
        } else if (open_.back().value.if_object() != nullptr) {
            open_.back().value.set(std::move(open_.back().key), std::move(value));
        } else {
            open_.back().value.push(std::move(value));
        }
        return true;
    }

    std::vector<Open> open_;
    Json root_;
    std::string problem_;
};

nlohmann::ordered_json to_library(const Json& json)
{
    using Library = nlohmann::ordered_json;
    return std::visit(
        [](const auto& value) -> Library {
            using T = std::decay_t<decltype(value)>;
            if constexpr (std::is_same_v<T, std::monostate>) {
                return nullptr;
            } else if constexpr (std::is_same_v<T, Json::Array>) {
                Library array = Library::array();
                for (const Json& element : value) array.push_back(to_library(element));
                return array;
            } else if constexpr (std::is_same_v<T, Json::Object>) {
                Library object = Library::object();
                for (const auto& [key, member] : value) object[key] = to_library(member);
                return object;
            } else {
                return value;
            }
        },
        json.value());
}

}  // namespace

Result<Json> Json::parse(std::string_view text)
{
    Builder builder;
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
        return Error{ErrorCode::kInvalid, builder.problem().empty() ? "not valid JSON" : builder.problem()};
    }
    return builder.take();
}

std::string Json::dump() const
{
    return to_library(*this).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Json::pretty() const
{
    return to_library(*this).dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

Json Json::array_of(const std::vector<std::string>& texts)
{
    Array array;
    for (const std::string& text : texts) array.emplace_back(text);
    return Json{std::move(array)};
}

std::optional<std::uint64_t> Json::if_unsigned() const
{
    if (const auto* value = std::get_if<std::uint64_t>(&value_)) return *value;
    return std::nullopt;
}

std::optional<double> Json::if_number() const
{
    if (const auto* value = std::get_if<std::uint64_t>(&value_)) return static_cast<double>(*value);
    if (const auto* value = std::get_if<std::int64_t>(&value_)) return static_cast<double>(*value);
    if (const auto* value = std::get_if<double>(&value_)) return *value;
    return std::nullopt;
}

const Json* Json::find(std::string_view key) const
{
    const Object* object = if_object();
    if (object == nullptr) return nullptr;
    for (const auto& [name, value] : *object) {
        if (name == key) return &value;
    }
    return nullptr;
}

std::string Json::text(std::string_view key, std::string_view fallback) const
{
    const Json* member = find(key);
    const std::string* value = member != nullptr ? member->if_string() : nullptr;
    return value != nullptr ? *value : std::string{fallback};
}

std::uint64_t Json::number(std::string_view key, std::uint64_t fallback) const
{
    const Json* member = find(key);
    return member != nullptr ? member->if_unsigned().value_or(fallback) : fallback;
}

std::int64_t Json::integer(std::string_view key, std::int64_t fallback) const
{
    const Json* member = find(key);
    if (member == nullptr) return fallback;
    if (const auto* value = std::get_if<std::int64_t>(&member->value_)) return *value;
    const auto value = member->if_unsigned();
    return value && std::in_range<std::int64_t>(*value) ? static_cast<std::int64_t>(*value) : fallback;
}

bool Json::flag(std::string_view key, bool fallback) const
{
    const Json* member = find(key);
    const bool* value = member != nullptr ? member->if_bool() : nullptr;
    return value != nullptr ? *value : fallback;
}

const Json::Array& Json::elements(std::string_view key) const
{
    static const Array kNone;
    const Json* member = find(key);
    const Array* array = member != nullptr ? member->if_array() : nullptr;
    return array != nullptr ? *array : kNone;
}

std::vector<std::string> Json::texts(std::string_view key) const
{
    std::vector<std::string> texts;
    for (const Json& element : elements(key)) {
        if (const std::string* text = element.if_string()) texts.push_back(*text);
    }
    return texts;
}

Json& Json::set(std::string key, Json value)
{
    if (is_null()) value_ = Object{};
    auto& object = std::get<Object>(value_);
    for (auto& [name, member] : object) {
        if (name == key) {
            member = std::move(value);
            return *this;
        }
    }
    object.emplace_back(std::move(key), std::move(value));
    return *this;
}

void Json::push(Json value)
{
    if (is_null()) value_ = Array{};
    std::get<Array>(value_).push_back(std::move(value));
}

}  // namespace splitvisor::controller
