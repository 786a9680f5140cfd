#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "base/result.h"
#include "base/units.h"

namespace splitvisor {

/// Owns a memory mapping.
class Mapping {
  public:
    Mapping() = default;
    Mapping(Mapping&& other) noexcept
        : base_{std::exchange(other.base_, nullptr)}, size_{std::exchange(other.size_, 0)}
    {
    }
    Mapping& operator=(Mapping&& other) noexcept
    {
        if (this != &other) {
            reset();
            base_ = std::exchange(other.base_, nullptr);
            size_ = std::exchange(other.size_, 0);
        }
        return *this;
    }
    ~Mapping() { reset(); }

    /// Private anonymous zeroed memory, read-write, of 4 KiB pages only, populated at first touch.
    /// `size` is rounded up to whole pages.
    static Result<Mapping> anonymous(ByteCount size);

    /// Maps `size` bytes of a descriptor from `offset`, shared, read-write.
    static Result<Mapping> shared(int fd, ByteCount size, std::uint64_t offset);

    [[nodiscard]] std::byte* data() const { return base_; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::span<std::byte> bytes() const { return {base_, size_}; }
    void reset();

  private:
    Mapping(std::byte* base, std::size_t size) : base_{base}, size_{size} {}
    std::byte* base_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace splitvisor
