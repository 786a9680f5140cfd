#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "base/log.h"
#include "fabric/connection.h"

namespace splitvisor::fabric {

/// A folder of one test's own.
struct Directory {
    std::string path;
    Directory()
    {
        std::string name = (std::filesystem::temp_directory_path() / "fabric-test-XXXXXX").string();
        SPLITVISOR_CHECK(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Directory() { std::filesystem::remove_all(path); }
};

inline Endpoint endpoint_of(std::string_view text)
{
    return Endpoint::parse(text).value();
}

}  // namespace splitvisor::fabric
