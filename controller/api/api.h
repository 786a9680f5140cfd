#pragma once

#include <memory>
#include <string>
#include <vector>

#include "controller/api/router.h"
#include "controller/api/tokens.h"
#include "controller/console/console_broker.h"
#include "controller/http/http_server.h"
#include "controller/vnodes/component_service.h"
#include "controller/vnodes/vnode_service.h"
#include "controller/vnodes/volume_service.h"

namespace splitvisor::controller {

/// The REST API, version 1 (docs/openapi.yaml): finds the route, checks the token, parses the body, calls the service.
class Api final : public HttpHandler {
  public:
    struct Parts {
        const Token& admin;
        ComponentHub& hub;
        ConsoleBroker& consoles;
        ComponentService& components;
        VnodeService& vnodes;
        VolumeService& volumes;
    };
    explicit Api(Parts parts);

    HttpResponse handle(const HttpRequest& request) override;
    std::variant<std::shared_ptr<BytePipe>, HttpResponse> upgrade(const HttpRequest& request) override;

    [[nodiscard]] const std::vector<Route>& routes() const { return routes_; }

  private:
    struct Found {
        const Route* route;
        Call call;
    };
    [[nodiscard]] Outcome<Found> find(const HttpRequest& request) const;
    [[nodiscard]] bool is_authorized(const HttpRequest& request) const;
    [[nodiscard]] HttpResponse refusal(const HttpRequest& request, const Problem& problem) const;
    void add_general_routes();
    void add_vnode_routes();
    void add_volume_routes();

    Parts parts_;
    std::vector<Route> routes_;
};

}  // namespace splitvisor::controller
