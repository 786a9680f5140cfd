#pragma once

#include <string>
#include <vector>

namespace splitvisor::controller {

/// Why a component was not chosen, for people.
struct Rejection {
    std::string component;
    std::string reason;
};

/// "component: reason" for each.
[[nodiscard]] inline std::vector<std::string> to_texts(const std::vector<Rejection>& rejections)
{
    std::vector<std::string> texts;
    for (const Rejection& rejection : rejections) texts.push_back(rejection.component + ": " + rejection.reason);
    return texts;
}

}  // namespace splitvisor::controller
