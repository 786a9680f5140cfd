#include "controller/controller.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <optional>
#include <utility>

#include "base/fd.h"
#include "base/log.h"
#include "controller/api/api.h"
#include "controller/components/control_server.h"
#include "controller/vnodes/reconciler.h"

namespace splitvisor::controller {

namespace {

/// Two controllers on one state folder would both give away the same memory.
Result<Fd> lock_state_dir(const std::string& path)
{
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Error::from_errno("mkdir " + path);
    Fd folder{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!folder.valid()) return Error::from_errno("open " + path);
    if (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) return Error{ErrorCode::kExists, "another controller uses " + path};
        return Error::from_errno("flock " + path);
    }
    return folder;
}

class RunningController final : public Controller {
  public:
    explicit RunningController(const ControllerOptions& options)
        : options_{options}
    {
    }

    /// Whoever waits for a component is told first; then those go that call others: the components' connections, the
    /// users' requests, and with the members, last to first, the reconciler and the reaper.
    ~RunningController() override
    {
        if (registry_) registry_->shut_down();
        control_server_.reset();
        consoles_.close_all();
        http_server_.reset();
    }

    Status start()
    {
        auto lock = lock_state_dir(options_.state_dir);
        if (!lock) return lock.error();
        lock_ = std::move(*lock);
        SPLITVISOR_TRY(open_state());
        make_registry();
        make_services();
        SPLITVISOR_TRY(vnodes_->recover());
        SPLITVISOR_TRY(volumes_->recover());
        return open_doors();
    }

    [[nodiscard]] std::uint16_t rest_port() const override { return http_server_->port(); }
    [[nodiscard]] std::uint16_t control_port() const override { return control_server_->port(); }

  private:
    Status open_state()
    {
        auto store = open_sqlite_store(options_.state_dir + "/state.db");
        if (!store) return store.error();
        store_ = std::move(*store);
        auto admin = Token::load(*store_, "admin", options_.state_dir + "/admin-token");
        if (!admin) return admin.error();
        admin_ = std::move(*admin);
        auto enrol = Token::load(*store_, "enrol", options_.state_dir + "/enrol-token");
        if (!enrol) return enrol.error();
        enrol_ = std::move(*enrol);
        auto catalog = Catalog::load(*store_);
        if (!catalog) return catalog.error();
        catalog_ = std::move(*catalog);
        return {};
    }

    void make_registry()
    {
        RegistryOptions options;
        options.heartbeat_limit_ms = options_.heartbeat_limit_ms;
        options.is_enrol_token = [this](const std::string& token) { return enrol_->matches(token); };
        // Called only while the control server lives; the reconciler and the reaper live longer.
        options.on_vnode_exit = [this](VnodeExit exit, std::function<void()> heard) {
            if (reconciler_) reconciler_->add_exit(std::move(exit), std::move(heard));
        };
        options.on_change = [this] {
            if (reconciler_) reconciler_->wake();
            if (reaper_) reaper_->wake();
        };
        registry_ = std::make_unique<ComponentRegistry>(*catalog_, std::move(options));
    }

    void make_services()
    {
        processes_.emplace(*registry_);
        memory_.emplace(*registry_, options_.region_size);
        storage_.emplace(*registry_);
        reaper_ = std::make_unique<Reaper>(*catalog_, *registry_, *memory_, *storage_);
        vnodes_.emplace(
            VnodeService::Parts{*catalog_, *registry_, *processes_, *memory_, *storage_, *reaper_});
        volumes_.emplace(*catalog_, *registry_, *storage_, *reaper_);
        components_.emplace(*catalog_, *registry_);
        reconciler_ = std::make_unique<Reconciler>(*catalog_, *registry_, *processes_, *vnodes_);
        api_.emplace(Api::Parts{*admin_, *registry_, consoles_, *components_, *vnodes_, *volumes_});
    }

    Status open_doors()
    {
        auto control_server = start_control_server(options_.listen_control, *registry_, consoles_);
        if (!control_server) return control_server.error();
        control_server_ = std::move(*control_server);
        HttpServerOptions http;
        http.address = options_.listen_address;
        http.port = options_.listen_port;
        auto http_server = start_http_server(http, *api_);
        if (!http_server) return http_server.error();
        http_server_ = std::move(*http_server);
        return {};
    }

    const ControllerOptions options_;
    Fd lock_;
    std::unique_ptr<MetaStore> store_;
    std::optional<Token> admin_;
    std::optional<Token> enrol_;
    std::unique_ptr<Catalog> catalog_;
    std::unique_ptr<ComponentRegistry> registry_;
    ConsoleBroker consoles_;
    std::optional<ProcessManager> processes_;
    std::optional<MemoryManager> memory_;
    std::optional<StorageManager> storage_;
    std::unique_ptr<Reaper> reaper_;
    std::optional<VnodeService> vnodes_;
    std::optional<VolumeService> volumes_;
    std::optional<ComponentService> components_;
    std::unique_ptr<Reconciler> reconciler_;
    std::optional<Api> api_;
    std::unique_ptr<ControlServer> control_server_;
    std::unique_ptr<HttpServer> http_server_;
};

}  // namespace

Result<std::unique_ptr<Controller>> Controller::start(const ControllerOptions& options)
{
    auto controller = std::make_unique<RunningController>(options);
    SPLITVISOR_TRY(controller->start());
    return std::unique_ptr<Controller>{std::move(controller)};
}

}  // namespace splitvisor::controller
