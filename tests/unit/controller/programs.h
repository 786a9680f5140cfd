#pragma once

#include <filesystem>
#include <string>

namespace splitvisor::controller {

/// A program of the build that this test belongs to; `path` counts from the build folder.
inline std::string built(const std::string& path)
{
    const auto self = std::filesystem::read_symlink("/proc/self/exe");
    return (self.parent_path() / "../../.." / path).lexically_normal().string();
}

}  // namespace splitvisor::controller
