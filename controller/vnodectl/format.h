#pragma once

#include <string>
#include <string_view>

#include "controller/json/json.h"

namespace splitvisor::vnodectl {

/// Guests, VMMs and components can have said what is printed: control characters never reach the terminal.
[[nodiscard]] std::string printable(std::string_view text);

// Answers of the controller, for people.
[[nodiscard]] std::string format_components(const controller::Json& body);
[[nodiscard]] std::string format_vnodes(const controller::Json& body);
[[nodiscard]] std::string format_volumes(const controller::Json& body);
/// One object as "key: value" lines; members that are objects or lists are indented below.
[[nodiscard]] std::string format_details(const controller::Json& body);

}  // namespace splitvisor::vnodectl
