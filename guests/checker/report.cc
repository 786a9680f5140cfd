#include "checker/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <utility>

#include "base/clock.h"
#include "base/fd.h"

namespace splitvisor::checker {

namespace {

constexpr std::uint64_t kTickNs = 5'000'000'000;
/// A new phase is told sooner, so that the last line before a hang names it, but short phases do not flood
/// the console.
constexpr std::uint64_t kPhaseNs = 1'000'000'000;
constexpr std::uint64_t kPrintedMismatches = 8;

/// The guest-physical address behind a pointer, 0 where this process may not know it (Linux:
/// admin-guide/mm/pagemap).
Gpa physical_address(const void* pointer)
{
    constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
    constexpr std::uint64_t kFrameMask = (std::uint64_t{1} << 55) - 1;
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    const Fd pagemap{::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)};
    std::uint64_t entry = 0;
    const auto offset = static_cast<off_t>((address >> kPageShift) * sizeof entry);
    if (::pread(pagemap.get(), &entry, sizeof entry, offset) != sizeof entry || (entry & kPresent) == 0)
        return Gpa{0};
    return Gpa{((entry & kFrameMask) << kPageShift) + address % kPageBytes};
}

}  // namespace

Report::Report(Seed seed) : seed_{seed}, started_ns_{now_ns()}, next_tick_ns_{started_ns_} {}

void Report::count_child(std::uint64_t verified, std::uint64_t mismatches)
{
    pages_verified_ += verified;
    mismatches_ += mismatches;
}

bool Report::may_print_mismatch()
{
    return mismatches_++ < kPrintedMismatches;
}

void Report::mismatch(const void* address, PageIndex page, Content expected, const Difference& difference)
{
    if (!may_print_mismatch()) return;
    const std::lock_guard lock{mutex_};
    std::printf("vnode-checker: mismatch phase=\"%s\" address=%p gpa=0x%" PRIx64 " page=%" PRIu64
                " expected=%s version=%" PRIu64
                " looks_like=\"%s\" wrong_words=%zu first_word=%zu expected_word=0x%016" PRIx64
                " found_word=0x%016" PRIx64 "\n",
                phase_.c_str(), address, physical_address(address).value(), page.value(),
                expected.zero ? "zeros" : "pattern", expected.version.value(), difference.looks_like.c_str(),
                difference.wrong_words, difference.first_word, difference.expected, difference.found);
    std::fflush(stdout);
}

void Report::mismatch(std::string_view what)
{
    if (!may_print_mismatch()) return;
    const std::lock_guard lock{mutex_};
    std::printf("vnode-checker: mismatch phase=\"%s\" %.*s\n", phase_.c_str(), static_cast<int>(what.size()),
                what.data());
    std::fflush(stdout);
}

void Report::begin(const std::string& phase)
{
    {
        const std::lock_guard lock{mutex_};
        phase_ = phase;
    }
    print_if_due(kTickNs - kPhaseNs);
}

void Report::tick()
{
    print_if_due(0);
}

void Report::print_if_due(std::uint64_t early_ns)
{
    const std::uint64_t now = now_ns();
    std::uint64_t due = next_tick_ns_;
    if (now + early_ns < due || !next_tick_ns_.compare_exchange_strong(due, now + kTickNs)) return;
    const std::lock_guard lock{mutex_};
    std::printf("vnode-checker: %.1f s: %s: pages_written=%" PRIu64 " pages_verified=%" PRIu64
                " mismatches=%" PRIu64 "\n",
                seconds(), phase_.c_str(), pages_written_.load(), pages_verified_.load(), mismatches_.load());
    std::fflush(stdout);
}

double Report::seconds() const
{
    return static_cast<double>(now_ns() - started_ns_) / 1e9;
}

void Report::print_result(std::string_view error) const
{
    const bool ok = error.empty() && mismatches_ == 0;
    std::string tail;
    if (!error.empty()) {
        // Our own messages hold neither control characters nor backslashes; a path may hold a quote.
        for (const char c : error) tail += c == '"' || c == '\\' ? '\'' : c;
        tail = ",\"error\":\"" + tail + "\"";
    }
    std::printf("vnode-checker: {\"ok\":%s,\"pages_written\":%" PRIu64 ",\"pages_verified\":%" PRIu64
                ",\"mismatches\":%" PRIu64 ",\"bytes_written\":%" PRIu64 ",\"seconds\":%.3f,\"seed\":%" PRIu64
                "%s}\n",
                ok ? "true" : "false", pages_written_.load(), pages_verified_.load(), mismatches_.load(),
                pages_written_.load() * kPageBytes, seconds(), seed_.value(), tail.c_str());
    std::fflush(stdout);
}

}  // namespace splitvisor::checker
