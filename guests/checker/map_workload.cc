#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/fd.h"
#include "checker/workloads.h"

namespace splitvisor::checker {

namespace {

constexpr std::uint64_t kLargestMapPages = 2048;
constexpr std::uint64_t kMapsPerRound = 16;

/// A mapping whose pages are written and verified at one version each time.
class Window {
  public:
    Window(Work& work, const Mapping& memory) : work_{work}, memory_{memory} {}

    [[nodiscard]] std::uint64_t pages() const { return memory_.size() / kPageBytes; }
    [[nodiscard]] PageWords words(std::uint64_t page) const
    {
        return PageWords{reinterpret_cast<std::uint64_t*>(memory_.data() + page * kPageBytes), kWordsPerPage};
    }

    void write(std::uint64_t first, std::uint64_t count, Version version)
    {
        for (std::uint64_t page = first; page < first + count; ++page) {
            work_.pattern.write(words(page), PageIndex{page}, {version, false});
            work_.report.count_written(1);
        }
        work_.report.tick();
    }

    void verify(std::uint64_t first, std::uint64_t count, Content expected)
    {
        for (std::uint64_t page = first; page < first + count; ++page) {
            work_.report.count_verified(1);
            if (const auto difference = work_.pattern.compare(words(page), PageIndex{page}, expected)) {
                work_.report.mismatch(words(page).data(), PageIndex{page}, expected, *difference);
            }
        }
        work_.report.tick();
    }

  private:
    Work& work_;
    const Mapping& memory_;
};

constexpr Content kZeros{Version{0}, true};
constexpr Content kFirst{Version{1}, false};

Status check_anonymous(Work& work, std::uint64_t pages)
{
    auto memory = Mapping::anonymous(PageCount{pages}.bytes());
    if (!memory) return memory.error().in("no memory for a map");
    Window window{work, *memory};
    window.verify(0, pages, kZeros);
    window.write(0, pages, kFirst.version);

    // What is thrown away in the middle must come back as zeros, and its neighbours must not notice.
    const std::uint64_t first = pages / 4;
    const std::uint64_t count = pages / 2;
    if (count > 0 && ::madvise(window.words(first).data(), count * kPageBytes, MADV_DONTNEED) != 0) {
        return Error::from_errno("madvise(MADV_DONTNEED) of a map");
    }
    window.verify(0, first, kFirst);
    window.verify(first, count, kZeros);
    window.verify(first + count, pages - first - count, kFirst);
    return {};
}

/// Compares what the file system reads with what was written through the map.
Status check_file_reads(Work& work, int file, std::uint64_t pages, Version version)
{
    alignas(kPageBytes) std::array<std::uint64_t, kWordsPerPage> words{};
    for (std::uint64_t page = 0; page < pages; ++page) {
        const auto offset = static_cast<off_t>(page * kPageBytes);
        if (::pread(file, words.data(), kPageBytes, offset) != static_cast<ssize_t>(kPageBytes))
            return Error::from_errno("read of a tmpfs file");
        work.report.count_verified(1);
        if (const auto difference = work.pattern.compare(words, PageIndex{page}, {version, false})) {
            work.report.mismatch(words.data(), PageIndex{page}, {version, false}, *difference);
        }
    }
    return {};
}

Status check_file(Work& work, std::uint64_t pages)
{
    const Fd file{::memfd_create("vnode-checker", MFD_CLOEXEC)};
    const PageCount size{pages};
    if (!file.valid() || ::ftruncate(file.get(), static_cast<off_t>(size.bytes().value())) != 0)
        return Error::from_errno("a tmpfs file");
    auto memory = Mapping::shared(file.get(), size.bytes(), 0);
    if (!memory) return memory.error().in("cannot map a tmpfs file");
    Window window{work, *memory};
    window.verify(0, pages, kZeros);
    window.write(0, pages, kFirst.version);
    if (auto checked = check_file_reads(work, file.get(), pages, kFirst.version); !checked) return checked;

    // A second map of the same pages, and a hole.
    auto again = Mapping::shared(file.get(), size.bytes(), 0);
    if (!again) return again.error().in("cannot map a tmpfs file again");
    Window{work, *again}.verify(0, pages, kFirst);
    const std::uint64_t hole = pages / 2;
    if (hole > 0 && ::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                                static_cast<off_t>(hole * kPageBytes)) != 0) {
        return Error::from_errno("punching a hole into a tmpfs file");
    }
    window.verify(0, hole, kZeros);
    window.verify(hole, pages - hole, kFirst);
    return {};
}

}  // namespace

Status run_map(Work& work)
{
    const std::uint64_t largest = std::clamp<std::uint64_t>(work.arena.pages() / 8, 1, kLargestMapPages);
    for (std::uint64_t i = 0; i < kMapsPerRound; ++i) {
        const std::uint64_t pages = 1 + work.random.below(largest);
        auto checked = i % 2 == 0 ? check_anonymous(work, pages) : check_file(work, pages);
        if (!checked) return checked;
    }
    return {};
}

}  // namespace splitvisor::checker
