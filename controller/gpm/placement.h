#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "controller/model/rejection.h"

namespace splitvisor::controller {

/// What a pComponent has left.
struct ProcessorOffer {
    std::string name;
    bool connected = false;
    std::uint64_t free_vcpus = 0;
    ByteCount free_memory;  ///< for ExCaches
    std::vector<std::string> kernels;
};

struct ProcessorRequest {
    std::uint32_t vcpus = 1;
    ByteCount excache;
    std::string kernel;
    std::string initrd;  ///< may be empty
};

struct ProcessorPlacement {
    std::optional<std::string> chosen;
    std::vector<Rejection> rejected;
};

/// The connected pComponent that has the files and the most memory left after the vNode; of equals the one with more
/// free vCPUs, then the first by name.
[[nodiscard]] ProcessorPlacement place_vnode(const std::vector<ProcessorOffer>& offers,
                                             const ProcessorRequest& request);

}  // namespace splitvisor::controller
