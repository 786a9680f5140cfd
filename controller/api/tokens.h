#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "controller/store/meta_store.h"

namespace splitvisor::controller {

/// A secret that the controller knows only by its SHA-256. Thread-safe.
class Token {
  public:
    /// At the first start makes the secret and writes it to `path` (mode 0600) for those who need it; afterwards takes
    /// the hash from the store. The store's key is "token/" + name.
    static Result<Token> load(MetaStore& store, const std::string& name, const std::string& path);

    /// Takes the same time whatever is wrong with it.
    [[nodiscard]] bool matches(std::string_view secret) const;

  private:
    explicit Token(std::string hash) : hash_{std::move(hash)} {}
    std::string hash_;  ///< 32 bytes
};

}  // namespace splitvisor::controller
