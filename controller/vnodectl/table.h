#pragma once

#include <string>
#include <vector>

namespace splitvisor::vnodectl {

/// Columns as wide as their widest cell, two spaces between them; the first row is the heading.
[[nodiscard]] std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace splitvisor::vnodectl
