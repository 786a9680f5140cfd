#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "guests/ring3/verifier.h"

// Private to the verifiers: one for each program.
namespace splitvisor::ring3 {

[[nodiscard]] std::unique_ptr<Verifier> make_touch_verifier(const Parameters& parameters);
[[nodiscard]] std::unique_ptr<Verifier> make_word_count_verifier(const Parameters& parameters);
[[nodiscard]] std::unique_ptr<Verifier> make_key_value_verifier(const Parameters& parameters);
[[nodiscard]] std::unique_ptr<Verifier> make_sort_verifier(const Parameters& parameters);
[[nodiscard]] Result<std::unique_ptr<Verifier>> make_train_verifier(const Parameters& parameters);

inline Error corrupt(const std::string& what) { return Error{ErrorCode::kCorrupt, what}; }

/// "arena page N".
inline std::string page_name(std::uint64_t offset) { return "arena page " + std::to_string(offset / kPage); }

/// The rest of the arena from `offset` on is untouched.
[[nodiscard]] inline Status expect_zeros(std::span<const std::byte> arena, std::uint64_t offset)
{
    for (auto at = offset; at < arena.size(); ++at) {
        if (arena[at] != std::byte{0}) return corrupt(page_name(at) + " was written beyond the program's data");
    }
    return {};
}

[[nodiscard]] inline Status expect_same(std::span<const std::byte> arena, std::uint64_t offset, const void* expected,
                                        std::size_t bytes, const std::string& what)
{
    if (std::memcmp(arena.data() + offset, expected, bytes) == 0) return {};
    return corrupt(what + " differs at " + page_name(offset));
}

}  // namespace splitvisor::ring3
