#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

/// A small emitter of ACPI machine language (ACPI 6.4, chapter 20): each function returns the bytes of one term, and
/// terms nest by concatenation. For tables of our own making: a malformed name is a bug and aborts.
namespace splitvisor::vmm::acpi {

using Bytes = std::vector<std::byte>;

[[nodiscard]] Bytes concat(std::initializer_list<Bytes> terms);
[[nodiscard]] Bytes concat(std::span<const Bytes> terms);

/// "\_SB.PWRB": segments of at most four characters [A-Z0-9_], padded with '_'.
[[nodiscard]] Bytes path(std::string_view text);
[[nodiscard]] Bytes integer(std::uint64_t value);
[[nodiscard]] Bytes string(std::string_view text);
/// A compressed EISA identifier, "PNP0501".
[[nodiscard]] Bytes eisa_id(std::string_view id);

[[nodiscard]] Bytes name(std::string_view object, const Bytes& value);
[[nodiscard]] Bytes package(std::initializer_list<Bytes> elements);
[[nodiscard]] Bytes scope(std::string_view where, const Bytes& body);
[[nodiscard]] Bytes device(std::string_view object, const Bytes& body);
[[nodiscard]] Bytes method(std::string_view object, std::uint8_t arguments, const Bytes& body);
[[nodiscard]] Bytes argument(std::uint8_t index);
[[nodiscard]] Bytes if_equal(const Bytes& left, const Bytes& right, const Bytes& body);
[[nodiscard]] Bytes notify(std::string_view object, std::uint8_t value);

// Resource descriptors (ACPI 6.4, section 6.4), to be wrapped in resources().
[[nodiscard]] Bytes resources(std::initializer_list<Bytes> descriptors);
[[nodiscard]] Bytes io_ports(std::uint16_t first, std::uint8_t count);
[[nodiscard]] Bytes memory_window(std::uint32_t start, std::uint32_t bytes);
/// Edge-triggered, active high, exclusive.
[[nodiscard]] Bytes edge_interrupt(std::uint32_t gsi);

}  // namespace splitvisor::vmm::acpi
