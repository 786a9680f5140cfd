#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "controller/json/json.h"

namespace splitvisor::controller {

/// A process that is certainly meant: pids are given again, start times are not.
struct ProcessIdentity {
    pid_t pid = 0;
    std::uint64_t start_time = 0;  ///< /proc/PID/stat, field 22
};

struct VmmEnding {
    int exit_status = -1;  ///< as from a shell: 128 + signal; -1 where it is not known
    std::string reason;
};

/// The files of one vNode on its pComponent: config.json (0600: it has the capabilities), vmm.log, what the keeper
/// writes (pid, exit), and what the VMM writes (exit.json, sockets).
class RunDir {
  public:
    explicit RunDir(std::string path) : path_{std::move(path)} {}

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string config() const { return path_ + "/config.json"; }
    [[nodiscard]] std::string control_socket() const { return path_ + "/control.sock"; }
    [[nodiscard]] std::string console_socket() const { return path_ + "/console.sock"; }

    /// Creates the folder, puts the last run's log aside, removes its other traces and writes the configuration.
    [[nodiscard]] Status prepare(const Json& config) const;
    [[nodiscard]] Result<Json> read_config() const;
    [[nodiscard]] std::optional<ProcessIdentity> process() const;
    /// How the VMM ended: from the keeper's exit, which knows signals too; from the VMM's own exit.json; and the last
    /// line of its log where it gave no reason. Nothing where nobody has written anything down yet.
    [[nodiscard]] std::optional<VmmEnding> ending() const;
    [[nodiscard]] std::string last_log_line() const;
    [[nodiscard]] Status remove() const;

  private:
    std::string path_;
};

/// The VMM's configuration from the controller's: kernel and initrd become paths inside the kernels' folder, run_dir is
/// set. Refuses all names but plain ones of regular files.
[[nodiscard]] Result<Json> complete_config(Json spec, const std::string& kernels_dir, const std::string& run_dir);

/// The plain names of the regular files in a folder, sorted, at most 1000.
[[nodiscard]] std::vector<std::string> list_kernels(const std::string& kernels_dir);

}  // namespace splitvisor::controller
