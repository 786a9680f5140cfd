#pragma once

#include <optional>
#include <string>

#include "controller/components/registry.h"
#include "controller/gmm/memory_manager.h"
#include "controller/gpm/process_manager.h"
#include "controller/gsm/storage_manager.h"
#include "controller/json/json.h"
#include "controller/model/catalog.h"
#include "controller/vnodes/claims.h"
#include "controller/vnodes/problem.h"
#include "controller/vnodes/reaper.h"
#include "controller/vnodes/requests.h"

namespace splitvisor::controller {

/// What users do with vNodes. Each call holds the vNode's claim while it works and waits for the components; a vNode
/// that is claimed answers "busy". Everything a crash could cut in two is written down first, so that recover() and the
/// reconciler can finish or undo it. Thread-safe.
class VnodeService {
  public:
    struct Parts {
        Catalog& catalog;
        ComponentHub& hub;
        ProcessManager& processes;
        MemoryManager& memory;
        StorageManager& storage;
        Reaper& reaper;
    };
    explicit VnodeService(Parts parts) : parts_{parts} {}

    /// Undoes what an earlier controller left half-created. Call once, before anything else.
    [[nodiscard]] Status recover();

    [[nodiscard]] Json list() const;
    [[nodiscard]] Outcome<Json> show(const std::string& name) const;
    [[nodiscard]] Outcome<Json> create(const Json& body);
    [[nodiscard]] Finished remove(const std::string& name);
    [[nodiscard]] Outcome<Json> start(const std::string& name);
    [[nodiscard]] Outcome<Json> stop(const std::string& name, const StopRequest& request);
    [[nodiscard]] Outcome<Json> stats(const std::string& name);
    /// The pComponent on which the vNode's console can be opened.
    [[nodiscard]] Outcome<std::string> console_of(const std::string& name) const;

    /// A VMM has ended by itself: moves the vNode's state, where the report concerns its present run.
    [[nodiscard]] Status note_exit(const VnodeExit& exit);

    [[nodiscard]] Claims& claims() { return claims_; }

  private:
    [[nodiscard]] Outcome<VnodeRecord> reserve(const VnodeRequest& request);
    [[nodiscard]] std::optional<Problem> place(Draft& draft, VnodeRecord& record);
    [[nodiscard]] std::optional<Problem> check_volumes(const Contents& contents, const VnodeRecord& record) const;
    [[nodiscard]] std::optional<Problem> check_start(const Contents& contents, const VnodeRecord& record) const;
    [[nodiscard]] Status undo_create(const VnodeRecord& record);
    [[nodiscard]] Outcome<Json> start_claimed(const std::string& name);
    [[nodiscard]] Outcome<VnodeRecord> prepare_start(const std::string& name);
    [[nodiscard]] std::optional<Problem> place_again(Draft& draft, VnodeRecord& record);
    [[nodiscard]] Status run_start(const VnodeRecord& record);
    [[nodiscard]] Status set_volume_epochs(const VnodeRecord& record);
    [[nodiscard]] Status undo_stop(const VnodeRecord& before, const std::string& reason);
    [[nodiscard]] Outcome<Json> fence(const std::string& name);
    [[nodiscard]] Outcome<VnodeRecord> find(const std::string& name) const;
    [[nodiscard]] Status set_state(const std::string& name, Epoch epoch, VnodeState state, const std::string& reason);
    [[nodiscard]] Json view(const VnodeRecord& record) const;
    [[nodiscard]] Problem busy(const std::string& name) const;

    Parts parts_;
    Claims claims_;
};

/// The state and the reason that a VMM's exit status means (vmm/README.md, "Exit status").
struct ExitMeaning {
    VnodeState state = VnodeState::kFailed;
    std::string reason;
};
[[nodiscard]] ExitMeaning meaning_of_exit(int exit_status, const std::string& reason);

}  // namespace splitvisor::controller
