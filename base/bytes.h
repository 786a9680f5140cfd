#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

namespace splitvisor {

static_assert(std::endian::native == std::endian::little, "wire and register layouts are little-endian");

/// Copies a plain value out of outside bytes. The caller has checked the length.
template <typename T>
    requires std::is_trivially_copyable_v<T>
[[nodiscard]] T load(std::span<const std::byte> bytes, std::size_t offset = 0)
{
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}

template <typename T>
    requires std::is_trivially_copyable_v<T>
void store(std::span<std::byte> bytes, std::size_t offset, const T& value)
{
    std::memcpy(bytes.data() + offset, &value, sizeof value);
}

template <typename T>
    requires std::is_trivially_copyable_v<T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value)
{
    return std::as_bytes(std::span{&value, 1});
}

}  // namespace splitvisor
