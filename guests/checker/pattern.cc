#include "checker/pattern.h"

#include <algorithm>

namespace splitvisor::checker {

namespace {

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;

constexpr std::uint64_t mix(std::uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

/// The page may have been replaced under the compiler's feet: what was stored is not what must be loaded.
void forget_what_is_known(ConstPageWords words)
{
    asm volatile("" : : "r"(words.data()) : "memory");
}

}  // namespace

std::uint64_t Random::next()
{
    return mix(state_ += kGolden);
}

std::uint64_t Pattern::key(PageIndex page, Content content) const
{
    return mix(mix(mix(seed_.value() + kGolden) + page.value()) + content.version.value());
}

std::uint64_t Pattern::word(std::uint64_t key, PageIndex page, Content content, std::size_t index) const
{
    if (content.zero) return 0;
    switch (index) {
    case 0: return page.value();
    case 1: return content.version.value();
    case 2: return seed_.value();
    default: return mix(key + index * kGolden);
    }
}

void Pattern::write(PageWords words, PageIndex page, Content content) const
{
    const std::uint64_t page_key = key(page, content);
    for (std::size_t i = 0; i < kWordsPerPage; ++i) words[i] = word(page_key, page, content, i);
    forget_what_is_known(words);
}

std::optional<Difference> Pattern::compare(ConstPageWords words, PageIndex page, Content content) const
{
    forget_what_is_known(words);
    const std::uint64_t page_key = key(page, content);
    std::optional<Difference> difference;
    for (std::size_t i = 0; i < kWordsPerPage; ++i) {
        const std::uint64_t expected = word(page_key, page, content, i);
        const std::uint64_t found = words[i];
        if (found == expected) continue;
        if (!difference) difference = Difference{i, 0, expected, found, recognise(words)};
        ++difference->wrong_words;
    }
    return difference;
}

std::uint64_t Pattern::checksum(PageIndex page, Content content) const
{
    const std::uint64_t page_key = key(page, content);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < kWordsPerPage; ++i)
        sum = mix(sum + kGolden + word(page_key, page, content, i));
    return sum;
}

std::string Pattern::recognise(ConstPageWords words) const
{
    if (std::ranges::all_of(words, [](std::uint64_t word) { return word == 0; })) return "zeros";
    const PageIndex page{words[0]};
    const Content content{Version{words[1]}, false};
    const std::uint64_t page_key = key(page, content);
    std::size_t equal = 0;
    for (std::size_t i = 0; i < kWordsPerPage; ++i)
        equal += words[i] == word(page_key, page, content, i) ? 1 : 0;
    if (equal < kWordsPerPage / 8) return "nothing known";
    const std::string name =
        "page " + std::to_string(page.value()) + " version " + std::to_string(content.version.value());
    return equal == kWordsPerPage ? name : "part of " + name;
}

}  // namespace splitvisor::checker
