#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/fd.h"
#include "checker/workloads.h"

namespace splitvisor::checker {

namespace {

/// Parent and child each get their own copy in the end, so the part that is forked is kept small.
constexpr std::uint64_t kForkedShare = 4;

/// What the child found, as it travels through the pipe.
struct Findings {
    std::uint64_t verified;
    std::uint64_t mismatches;
};

/// One mapping of which every page has the same version, so that parent and child need no table.
class UniformPages {
  public:
    UniformPages(Work& work, Mapping memory) : work_{work}, memory_{std::move(memory)} {}

    void write(Version version)
    {
        for (std::uint64_t page = 0; page < pages(); ++page) {
            work_.pattern.write(words(page), PageIndex{page}, content(page, version));
            work_.report.count_written(1);
            work_.report.tick();
        }
    }

    void verify(Version version)
    {
        for (std::uint64_t page = 0; page < pages(); ++page) {
            const Content expected = content(page, version);
            work_.report.count_verified(1);
            if (const auto difference = work_.pattern.compare(words(page), PageIndex{page}, expected)) {
                work_.report.mismatch(words(page).data(), PageIndex{page}, expected, *difference);
            }
        }
    }

  private:
    [[nodiscard]] std::uint64_t pages() const { return memory_.size() / kPageBytes; }
    [[nodiscard]] PageWords words(std::uint64_t page) const
    {
        return PageWords{reinterpret_cast<std::uint64_t*>(memory_.data() + page * kPageBytes), kWordsPerPage};
    }
    /// Every fifth page is of zeros in every second version.
    static Content content(std::uint64_t page, Version version)
    {
        return {version, page % 5 == 0 && version.value() % 2 == 0};
    }

    Work& work_;
    Mapping memory_;
};

[[noreturn]] void be_the_child(Work& work, UniformPages& pages, int pipe)
{
    const std::uint64_t verified_before = work.report.verified();
    const std::uint64_t mismatches_before = work.report.mismatches();
    pages.verify(Version{1});
    pages.write(Version{100});
    pages.verify(Version{100});
    const Findings findings{work.report.verified() - verified_before,
                            work.report.mismatches() - mismatches_before};
    const auto bytes = std::as_bytes(std::span{&findings, 1});
    ::_exit(write_all(pipe, bytes).ok() ? EXIT_SUCCESS : EXIT_FAILURE);
}

/// Waits for the child and takes over its counts; a child that died without a word is an error.
Status collect_child(Work& work, pid_t child, int pipe)
{
    Findings findings{};
    const auto told = read_all(pipe, std::as_writable_bytes(std::span{&findings, 1}));
    int status = 0;
    if (::waitpid(child, &status, 0) != child) return Error::from_errno("waitpid of the forked child");
    if (!told || !WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS) {
        return Error{ErrorCode::kIo, "the forked child died, wait status " + std::to_string(status)};
    }
    work.report.count_child(findings.verified, findings.mismatches);
    return {};
}

}  // namespace

Status run_fork(Work& work)
{
    const std::uint64_t count = std::max<std::uint64_t>(work.arena.pages() / kForkedShare, 1);
    auto memory = Mapping::anonymous(PageCount{count}.bytes());
    if (!memory) return memory.error().in("no memory for the forked pages");
    UniformPages pages{work, std::move(*memory)};
    pages.write(Version{1});

    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) return Error::from_errno("pipe");
    const Fd reader{ends[0]};
    Fd writer{ends[1]};
    const pid_t child = ::fork();
    if (child < 0) return Error::from_errno("fork");
    if (child == 0) be_the_child(work, pages, writer.get());
    writer.reset();

    pages.write(Version{2});
    pages.verify(Version{2});
    if (auto collected = collect_child(work, child, reader.get()); !collected) return collected;
    pages.verify(Version{2});
    return {};
}

}  // namespace splitvisor::checker
