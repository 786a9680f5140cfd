#pragma once

#include <string>

#include "controller/components/component_hub.h"
#include "controller/json/json.h"
#include "controller/model/catalog.h"
#include "controller/vnodes/problem.h"

namespace splitvisor::controller {

/// What users see of components. Thread-safe.
class ComponentService {
  public:
    ComponentService(const Catalog& catalog, const ComponentHub& hub) : catalog_{catalog}, hub_{hub} {}

    [[nodiscard]] Json list() const;
    [[nodiscard]] Outcome<Json> show(const std::string& name) const;

  private:
    [[nodiscard]] Json view(const Contents& contents, const ComponentRecord& record) const;

    const Catalog& catalog_;
    const ComponentHub& hub_;
};

}  // namespace splitvisor::controller
