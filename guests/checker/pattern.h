#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/units.h"

namespace splitvisor::checker {

/// A page of the arena, counted from its start.
using PageIndex = Tagged<struct PageIndexTag>;
using Seed = Tagged<struct SeedTag>;

inline constexpr std::size_t kWordsPerPage = kPageBytes / sizeof(std::uint64_t);
using PageWords = std::span<std::uint64_t, kWordsPerPage>;
using ConstPageWords = std::span<const std::uint64_t, kWordsPerPage>;

/// What a page holds: the pattern of its version, or zeros. The version rises with every write, also with one
/// of zeros.
struct Content {
    Version version;
    bool zero = true;

    bool operator==(const Content&) const = default;
};

/// How a page differs from what it should hold.
struct Difference {
    std::size_t first_word;
    std::size_t wrong_words;
    std::uint64_t expected;
    std::uint64_t found;
    /// What the page seems to hold instead: another version, another page, zeros.
    std::string looks_like;
};

/// The content of every page follows from seed, page and version, so it never has to be remembered.
/// The first three words name page, version and seed in plain, so that a stray page can be recognised.
class Pattern {
  public:
    explicit Pattern(Seed seed) : seed_{seed} {}

    void write(PageWords words, PageIndex page, Content content) const;
    [[nodiscard]] std::optional<Difference> compare(ConstPageWords words, PageIndex page,
                                                    Content content) const;

    /// Of the content as it should be.
    [[nodiscard]] std::uint64_t checksum(PageIndex page, Content content) const;

  private:
    [[nodiscard]] std::uint64_t key(PageIndex page, Content content) const;
    [[nodiscard]] std::uint64_t word(std::uint64_t key, PageIndex page, Content content,
                                     std::size_t index) const;
    [[nodiscard]] std::string recognise(ConstPageWords words) const;

    Seed seed_;
};

/// SplitMix64: a small generator of good numbers.
class Random {
  public:
    explicit Random(std::uint64_t state) : state_{state} {}
    std::uint64_t next();
    /// Evenly enough from 0 to bound - 1; bound is not zero.
    std::uint64_t below(std::uint64_t bound) { return next() % bound; }

  private:
    std::uint64_t state_;
};

}  // namespace splitvisor::checker
