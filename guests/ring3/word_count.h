#pragma once

#include "guests/ring3/abi.h"
#include "guests/ring3/arithmetic.h"

// Word count: a text of words in Zipf's frequencies is generated into memory, then counted into one hash table a vCPU;
// vCPU 0 adds the tables of the others to its own. Arena: vocabulary, tables, text.
namespace splitvisor::ring3 {

/// Up to 15 letters; the rest is zero, so that two words are equal where all 16 bytes are.
struct Word {
    char letters[16];
};

inline constexpr std::uint64_t kVocabulary = 32768;
inline constexpr std::uint64_t kTableEntries = 65536;
inline constexpr std::uint64_t kChunk = 65536;  ///< the text is made of chunks; no word crosses their borders

struct WordEntry {
    Word word;
    std::uint64_t hash;
    std::uint64_t count;  ///< 0: the entry is free
};
static_assert(sizeof(WordEntry) == 32);

constexpr std::uint64_t table_offset(std::uint32_t vcpu)
{
    return kVocabulary * sizeof(Word) + vcpu * kTableEntries * sizeof(WordEntry);
}
constexpr std::uint64_t text_offset(const Parameters& parameters) { return table_offset(parameters.vcpus); }
constexpr std::uint64_t text_chunks(const Parameters& parameters)
{
    return (parameters.arena_bytes - text_offset(parameters)) / kChunk;
}
constexpr std::uint64_t first_chunk(const Parameters& parameters, std::uint32_t vcpu)
{
    return text_chunks(parameters) * vcpu / parameters.vcpus;
}

/// Word number `rank` of the vocabulary: 2 to 12 letters, rarer words tend to be longer. Different ranks may give the
/// same word.
constexpr Word make_word(std::uint64_t seed, std::uint64_t rank)
{
    auto random = random_at(seed ^ 0x776f7264, rank);
    const std::uint64_t length = 2 + random % 4 + (rank < 64 ? 0 : random / 4 % 7);
    Word word{};
    random = mix(random);
    for (std::uint64_t i = 0; i < length; ++i, random /= 26) {
        word.letters[i] = static_cast<char>('a' + static_cast<int>(random % 26));
    }
    return word;
}

/// FNV-1a over the letters.
inline constexpr std::uint64_t kHashStart = 0xcbf29ce484222325;
constexpr std::uint64_t hash_letter(std::uint64_t hash, char letter)
{
    return (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
}

/// Writes chunk `index` of the text: words that are followed by a space each, and spaces to its end.
inline void write_chunk(std::uint64_t seed, const Word* vocabulary, std::uint64_t index, char* chunk)
{
    std::uint64_t at = 0;
    for (std::uint64_t i = 0; at + sizeof(Word) < kChunk; ++i) {
        const auto& word = vocabulary[zipf_rank(random_at(seed + index * 0x10001, i), kVocabulary)];
        for (std::uint64_t letter = 0; word.letters[letter] != 0; ++letter) chunk[at++] = word.letters[letter];
        chunk[at++] = ' ';
    }
    while (at < kChunk) chunk[at++] = ' ';
}

}  // namespace splitvisor::ring3
