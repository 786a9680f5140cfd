#include "guests/ring3/word_count.h"

#include "guests/ring3/task.h"

namespace splitvisor::ring3 {
namespace {

bool equal(const Word& a, const Word& b)
{
    std::uint64_t left[2];
    std::uint64_t right[2];
    __builtin_memcpy(left, &a, sizeof left);
    __builtin_memcpy(right, &b, sizeof right);
    return left[0] == right[0] && left[1] == right[1];
}

/// A table with linear probing. The vocabulary is half its size, so a free entry is always found.
class WordTable {
  public:
    WordTable(const Task& task, std::uint32_t vcpu)
        : entries_{reinterpret_cast<WordEntry*>(task.arena + table_offset(vcpu))}
    {
    }

    void add(const Word& word, std::uint64_t hash, std::uint64_t count)
    {
        auto at = mix(hash) % kTableEntries;
        while (entries_[at].count != 0 && !(entries_[at].hash == hash && equal(entries_[at].word, word))) {
            at = (at + 1) % kTableEntries;
        }
        if (entries_[at].count == 0) {
            entries_[at].word = word;
            entries_[at].hash = hash;
        }
        entries_[at].count += count;
    }

    void add_all(const WordTable& other)
    {
        for (std::uint64_t i = 0; i < kTableEntries; ++i) {
            const auto& entry = other.entries_[i];
            if (entry.count != 0) add(entry.word, entry.hash, entry.count);
        }
    }

  private:
    WordEntry* entries_;
};

std::uint64_t count_chunk(const char* text, WordTable& table)
{
    std::uint64_t words = 0;
    for (std::uint64_t at = 0; at < kChunk;) {
        Word word{};
        std::uint64_t length = 0;
        auto hash = kHashStart;
        for (; at < kChunk && text[at] != ' '; ++at) {
            // A text that was damaged on its way must not make the guest write beyond the word.
            if (length < sizeof word.letters - 1) word.letters[length++] = text[at];
            hash = hash_letter(hash, text[at]);
        }
        ++at;
        if (length == 0) continue;
        table.add(word, hash, 1);
        ++words;
    }
    return words;
}

}  // namespace

void run_word_count(const Task& task)
{
    const auto& parameters = task.parameters;
    auto* const vocabulary = reinterpret_cast<Word*>(task.arena);
    auto* const text = reinterpret_cast<char*>(task.arena + text_offset(parameters));
    if (task.vcpu == 0) {
        for (std::uint64_t rank = 0; rank < kVocabulary; ++rank) vocabulary[rank] = make_word(parameters.seed, rank);
    }
    task.meet(Step::kWithin);
    const auto first = first_chunk(parameters, task.vcpu);
    const auto end = first_chunk(parameters, task.vcpu + 1);
    for (auto chunk = first; chunk < end; ++chunk) {
        write_chunk(parameters.seed, vocabulary, chunk, text + chunk * kChunk);
    }
    task.meet(Step::kPrepared);

    WordTable table{task, task.vcpu};
    std::uint64_t words = 0;
    for (auto chunk = first; chunk < end; ++chunk) words += count_chunk(text + chunk * kChunk, table);
    task.outcome.operations = words;
    task.meet(Step::kWithin);
    if (task.vcpu == 0) {
        for (std::uint32_t other = 1; other < parameters.vcpus; ++other) table.add_all(WordTable{task, other});
    }
    task.meet(Step::kWorked);
}

}  // namespace splitvisor::ring3
