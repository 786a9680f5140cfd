#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace splitvisor::controller {

/// Who works on which vNode or volume just now: one at a time. Thread-safe.
class Claims {
  public:
    /// Held while one works on it.
    class Claim {
      public:
        Claim(Claims& claims, std::string name) : claims_{&claims}, name_{std::move(name)} {}
        Claim(Claim&& other) noexcept : claims_{std::exchange(other.claims_, nullptr)}, name_{std::move(other.name_)} {}
        Claim& operator=(Claim&&) = delete;
        ~Claim()
        {
            if (claims_ != nullptr) claims_->release(name_);
        }

      private:
        Claims* claims_;
        std::string name_;
    };

    /// Nothing where somebody has it. `work` says what is done, for others: "is being started".
    [[nodiscard]] std::optional<Claim> take(const std::string& name, const std::string& work)
    {
        const std::lock_guard lock{mutex_};
        if (!taken_.emplace(name, work).second) return std::nullopt;
        return Claim{*this, name};
    }

    [[nodiscard]] std::optional<std::string> work_on(const std::string& name) const
    {
        const std::lock_guard lock{mutex_};
        const auto found = taken_.find(name);
        if (found == taken_.end()) return std::nullopt;
        return found->second;
    }

  private:
    void release(const std::string& name)
    {
        const std::lock_guard lock{mutex_};
        taken_.erase(name);
    }

    mutable std::mutex mutex_;
    std::map<std::string, std::string> taken_;
};

}  // namespace splitvisor::controller
