#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/crc32c.h"
#include "guests/ring3/verify.h"
#include "guests/ring3/word_count.h"

namespace splitvisor::ring3 {
namespace {

using Counts = std::unordered_map<std::string, std::uint64_t>;

std::string_view letters_of(const Word& word) { return {word.letters, ::strnlen(word.letters, sizeof word.letters)}; }

/// Generates the text again, chunk by chunk, and counts its words with the standard library.
class WordCountVerifier final : public Verifier {
  public:
    explicit WordCountVerifier(const Parameters& parameters)
        : parameters_{parameters}, counts_(parameters.vcpus), words_(parameters.vcpus)
    {
        for (std::uint64_t rank = 0; rank < kVocabulary; ++rank) {
            vocabulary_.push_back(make_word(parameters.seed, rank));
        }
        for (std::uint32_t vcpu = 0; vcpu < parameters.vcpus; ++vcpu) count_share(vcpu);
        for (std::uint32_t vcpu = 1; vcpu < parameters.vcpus; ++vcpu) {
            for (const auto& [word, count] : counts_[vcpu]) counts_[0][word] += count;
        }
    }

    Status check(std::span<const Outcome> outcomes, std::span<const std::byte> arena) const override
    {
        SPLITVISOR_TRY(expect_same(arena, 0, vocabulary_.data(), vocabulary_.size() * sizeof(Word), "the vocabulary"));
        for (std::uint32_t vcpu = 0; vcpu < parameters_.vcpus; ++vcpu) {
            if (outcomes[vcpu].operations != words_[vcpu]) {
                return corrupt("vCPU " + std::to_string(vcpu) + " counted " +
                               std::to_string(outcomes[vcpu].operations) + " words of " +
                               std::to_string(words_[vcpu]));
            }
            SPLITVISOR_TRY(check_table(arena, vcpu));
        }
        return check_text(arena);
    }

  private:
    void count_share(std::uint32_t vcpu)
    {
        std::vector<char> chunk(kChunk);
        for (auto i = first_chunk(parameters_, vcpu); i < first_chunk(parameters_, vcpu + 1); ++i) {
            write_chunk(parameters_.seed, vocabulary_.data(), i, chunk.data());
            chunk_sums_.push_back(crc32c(std::as_bytes(std::span{chunk})));
            words_[vcpu] += count_words({chunk.data(), chunk.size()}, counts_[vcpu]);
        }
    }

    static std::uint64_t count_words(std::string_view text, Counts& counts)
    {
        std::uint64_t words = 0;
        std::string word;
        for (std::size_t at = 0; (at = text.find_first_not_of(' ', at)) != std::string_view::npos; ++words) {
            const auto end = std::min(text.find(' ', at), text.size());
            word.assign(text.substr(at, end - at));
            ++counts[word];
            at = end;
        }
        return words;
    }

    /// Each word has one entry, where a search for it ends, with the right count; every other byte is zero.
    [[nodiscard]] Status check_table(std::span<const std::byte> arena, std::uint32_t vcpu) const
    {
        auto missing = counts_[vcpu];
        for (std::uint64_t i = 0; i < kTableEntries; ++i) {
            const auto entry = entry_at(arena, vcpu, i);
            if (std::memcmp(&entry, &kFree, sizeof entry) == 0) continue;
            const auto expected = missing.find(std::string{letters_of(entry.word)});
            if (expected == missing.end() || !is_entry(entry, expected->first, expected->second) ||
                !is_reachable(arena, vcpu, i, entry.hash)) {
                return corrupt("a wrong word or count at " + page_name(table_offset(vcpu) + i * sizeof entry));
            }
            missing.erase(expected);
        }
        if (!missing.empty()) return corrupt("the table of vCPU " + std::to_string(vcpu) + " lacks words");
        return {};
    }

    static WordEntry entry_at(std::span<const std::byte> arena, std::uint32_t vcpu, std::uint64_t index)
    {
        return load<WordEntry>(arena, table_offset(vcpu) + index * sizeof(WordEntry));
    }

    static bool is_entry(const WordEntry& entry, std::string_view word, std::uint64_t count)
    {
        WordEntry expected{.word = {}, .hash = kHashStart, .count = count};
        word.copy(expected.word.letters, sizeof expected.word.letters);
        for (const auto letter : word) expected.hash = hash_letter(expected.hash, letter);
        return std::memcmp(&expected, &entry, sizeof entry) == 0;
    }

    /// No entry is free between where the search for the hash begins and `index`.
    static bool is_reachable(std::span<const std::byte> arena, std::uint32_t vcpu, std::uint64_t index,
                             std::uint64_t hash)
    {
        for (auto at = mix(hash) % kTableEntries; at != index; at = (at + 1) % kTableEntries) {
            if (entry_at(arena, vcpu, at).count == 0) return false;
        }
        return true;
    }

    [[nodiscard]] Status check_text(std::span<const std::byte> arena) const
    {
        for (std::uint64_t i = 0; i < chunk_sums_.size(); ++i) {
            const auto offset = text_offset(parameters_) + i * kChunk;
            if (crc32c(arena.subspan(offset, kChunk)) != chunk_sums_[i]) {
                return corrupt("the text differs in the 64 KiB at " + page_name(offset));
            }
        }
        return expect_zeros(arena, text_offset(parameters_) + chunk_sums_.size() * kChunk);
    }

    static constexpr WordEntry kFree{};

    Parameters parameters_;
    std::vector<Word> vocabulary_;
    std::vector<Counts> counts_;         ///< by vCPU; that of vCPU 0 has all
    std::vector<std::uint64_t> words_;   ///< by vCPU: in its share of the text
    std::vector<std::uint32_t> chunk_sums_;
};

}  // namespace

std::unique_ptr<Verifier> make_word_count_verifier(const Parameters& parameters)
{
    return std::make_unique<WordCountVerifier>(parameters);
}

}  // namespace splitvisor::ring3
