#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "base/log.h"

namespace splitvisor::controller {

/// A directory that is gone after the test. Its path is short enough for sockets.
class TemporaryDirectory {
  public:
    TemporaryDirectory()
    {
        std::string pattern = "/tmp/controller-test-XXXXXX";
        SPLITVISOR_CHECK(::mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory()
    {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

}  // namespace splitvisor::controller
