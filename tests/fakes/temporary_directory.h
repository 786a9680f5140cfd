#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "base/log.h"

namespace splitvisor::fakes {

/// A directory that is gone after the test. Its path is short enough for sockets; `parent` chooses the file system.
class TemporaryDirectory {
  public:
    explicit TemporaryDirectory(const std::string& parent = "/tmp")
    {
        path_ = parent + "/splitvisor-test-XXXXXX";
        SPLITVISOR_CHECK(::mkdtemp(path_.data()) != nullptr);
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory()
    {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string operator/(std::string_view name) const { return path_ + "/" + std::string{name}; }

  private:
    std::string path_;
};

}  // namespace splitvisor::fakes
