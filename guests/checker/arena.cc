#include "checker/arena.h"

#include <sys/mman.h>

namespace splitvisor::checker {

namespace {

/// One write in this many is of zeros.
constexpr std::uint64_t kZeroEvery = 8;
/// One touch in this many only reads.
constexpr std::uint64_t kReadEvery = 4;

PageIndex page_of(GroupIndex group, std::size_t slot)
{
    return PageIndex{group.value() * kPagesPerGroup + slot};
}

}  // namespace

Arena::Arena(Parts parts, std::uint64_t groups, Mapping memory)
    : parts_{parts}, groups_{groups}, memory_{std::move(memory)}, locks_(groups)
{
}

Result<Arena> Arena::create(Parts parts, std::uint64_t groups, bool huge)
{
    auto memory = Mapping::anonymous(PageCount{groups * kPagesPerGroup}.bytes());
    if (!memory) return memory.error().in("no memory for the arena, try a smaller --mib");
    if (huge && ::madvise(memory->data(), memory->size(), MADV_HUGEPAGE) != 0) {
        return Error::from_errno("madvise(MADV_HUGEPAGE) of the arena");
    }
    for (std::uint64_t group = 0; group < groups; ++group) {
        GroupEntries entries;
        for (std::size_t slot = 0; slot < kPagesPerGroup; ++slot) {
            entries[slot] = Entry::of(parts.pattern, page_of(GroupIndex{group}, slot), Content{});
        }
        if (auto stored = parts.ledger.store(GroupIndex{group}, entries); !stored) return stored.error();
    }
    return Arena{parts, groups, std::move(*memory)};
}

PageWords Arena::words(PageIndex page) const
{
    std::byte* const start = memory_.data() + page.value() * kPageBytes;
    return PageWords{reinterpret_cast<std::uint64_t*>(start), kWordsPerPage};
}

void Arena::verify(PageIndex page, const Entry& entry)
{
    parts_.report.count_verified(1);
    if (!entry.agrees(parts_.pattern, page)) {
        parts_.report.mismatch("the ledger's entry of page " + std::to_string(page.value()) +
                               " does not agree with its checksum");
        return;
    }
    const PageWords found = words(page);
    if (const auto difference = parts_.pattern.compare(found, page, entry.content())) {
        parts_.report.mismatch(found.data(), page, entry.content(), *difference);
    }
}

void Arena::rewrite(PageIndex page, Entry& entry, Random& random)
{
    const Content next{Version{entry.content().version.value() + 1}, random.below(kZeroEvery) == 0};
    parts_.pattern.write(words(page), page, next);
    entry = Entry::of(parts_.pattern, page, next);
    parts_.report.count_written(1);
}

Status Arena::rewrite_group(GroupIndex group, Random& random)
{
    const std::lock_guard lock{locks_[group.value()]};
    GroupEntries entries;
    if (auto loaded = parts_.ledger.load(group, entries); !loaded) return loaded;
    for (std::size_t slot = 0; slot < kPagesPerGroup; ++slot) {
        const PageIndex page = page_of(group, slot);
        // The other half is written without a look, so that a write is also the first touch of a page that is
        // away.
        if (slot % 2 == 0) verify(page, entries[slot]);
        rewrite(page, entries[slot], random);
    }
    return parts_.ledger.store(group, entries);
}

Status Arena::verify_group(GroupIndex group)
{
    const std::lock_guard lock{locks_[group.value()]};
    GroupEntries entries;
    if (auto loaded = parts_.ledger.load(group, entries); !loaded) return loaded;
    for (std::size_t slot = 0; slot < kPagesPerGroup; ++slot) verify(page_of(group, slot), entries[slot]);
    return {};
}

Status Arena::touch_group(GroupIndex group, Random& random)
{
    const std::lock_guard lock{locks_[group.value()]};
    GroupEntries entries;
    if (auto loaded = parts_.ledger.load(group, entries); !loaded) return loaded;
    for (std::uint64_t i = 0; i < parts_.ledger.batch(); ++i) {
        const std::size_t slot = random.below(kPagesPerGroup);
        const PageIndex page = page_of(group, slot);
        verify(page, entries[slot]);
        if (random.below(kReadEvery) != 0) rewrite(page, entries[slot], random);
    }
    return parts_.ledger.store(group, entries);
}

}  // namespace splitvisor::checker
