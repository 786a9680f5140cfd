#pragma once

#include <string>
#include <vector>

namespace splitvisor::controller {

/// Why a component was not chosen, for people.
struct Rejection {
    std::string component;
    std::string reason;
};

/// "component: reason" for each; where there was none to reject, that is the reason. `kind` is such as "mComponent".
[[nodiscard]] inline std::vector<std::string> to_texts(const std::vector<Rejection>& rejections, const std::string& kind)
{
    std::vector<std::string> texts;
    if (rejections.empty()) texts.push_back("no " + kind + " is enrolled");
    for (const Rejection& rejection : rejections) texts.push_back(rejection.component + ": " + rejection.reason);
    return texts;
}

}  // namespace splitvisor::controller
