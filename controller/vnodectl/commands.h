#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controller/vnodectl/client.h"

namespace splitvisor::vnodectl {

/// What `vnode create` was told. Sizes are checked by the controller.
struct VnodeFlags {
    std::string name;
    std::string memory;
    std::string excache;
    std::uint32_t vcpus = 1;
    std::string kernel;
    std::string initrd;
    std::string cmdline;
    std::vector<std::string> volumes;  ///< NAME or NAME,ro
    std::uint32_t memory_copies = 1;
    std::vector<std::string> nets;  ///< TAP or TAP,MAC
    std::string mechanism;
    bool torture = false;
    bool start = false;
};

struct StopFlags {
    double grace_s = 30;
    bool force = false;
};

/// The commands: each asks the controller and prints to standard output, a table or, with `json`, the answer as it is.
/// Each returns the exit status; errors have been printed to standard error, in one line with all its reasons.
class Commands {
  public:
    Commands(Client client, bool json) : client_{std::move(client)}, json_{json} {}

    int list_components();
    int show_component(const std::string& name);
    int list_vnodes();
    int show_vnode(const std::string& name);
    int create_vnode(const VnodeFlags& flags);
    int start_vnode(const std::string& name);
    int stop_vnode(const std::string& name, const StopFlags& flags);
    int delete_vnode(const std::string& name);
    int vnode_stats(const std::string& name);
    int vnode_console(const std::string& name, double idle_s);
    int list_volumes();
    int show_volume(const std::string& name);
    int create_volume(const std::string& name, const std::string& size, const std::string& image);
    int delete_volume(const std::string& name);
    int version();

  private:
    /// The body of a successful answer; failures are printed and leave nothing.
    [[nodiscard]] std::optional<Json> ask(const std::string& method, const std::string& path, const Json& body = {});
    [[nodiscard]] std::optional<std::string> path_of(const std::string& collection, const std::string& name) const;
    int print(const std::optional<Json>& body, std::string (*format)(const Json&));
    int act(const std::string& method, const std::string& path, const Json& body, const std::string& done);

    Client client_;
    bool json_;
};

/// Prints "vnodectl: ..." to standard error.
int fail(const std::string& message);

}  // namespace splitvisor::vnodectl
