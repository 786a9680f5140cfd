#include "ept/withdrawal.h"

#include <sys/mman.h>

#include <cstring>

#include "base/log.h"
#include "base/mapping.h"

#if defined(__SANITIZE_THREAD__)
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
#else
static void AnnotateIgnoreReadsBegin(const char*, int) {}
static void AnnotateIgnoreReadsEnd(const char*, int) {}
#endif

namespace splitvisor::ept {

namespace {

/// Reads pages that are write-protected. The kernel orders that against the guest's writes, which ThreadSanitizer can't
/// see.
void copy_protected(std::byte* to, const std::byte* from, std::size_t bytes)
{
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    std::memcpy(to, from, bytes);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

std::byte* page_at(std::span<std::byte> guest, Line line) { return guest.data() + line.byte_offset(); }

/// The number of pages from `first` on whose lines, and whose slots, follow each other.
std::size_t run_length(std::span<const WithdrawnPage> pages, std::size_t first)
{
    std::size_t length = 1;
    while (first + length < pages.size() &&
           pages[first + length].line.value() == pages[first].line.value() + length &&
           pages[first + length].slot == pages[first].slot + length) {
        ++length;
    }
    return length;
}

void drop(std::byte* at, std::size_t pages)
{
    // MADV_DONTNEED on our own page-aligned private mapping does not fail.
    SPLITVISOR_CHECK(::madvise(at, pages * kPageBytes, MADV_DONTNEED) == 0);
}

/// UFFDIO_MOVE: the page itself changes its address, in one step for every writer. Nothing is copied.
class MoveWithdrawal final : public Withdrawal {
  public:
    MoveWithdrawal(Userfault& userfault, std::span<std::byte> guest, Mapping slots)
        : userfault_{userfault}, guest_{guest}, slots_{std::move(slots)}
    {
    }

    void withdraw(std::span<WithdrawnPage> pages) override
    {
        for (std::size_t i = 0; i < pages.size();) {
            const auto length = run_length(pages, i);
            withdraw_run(pages.subspan(i, length));
            i += length;
        }
    }

    std::byte* slot(std::uint32_t slot) const override { return slots_.data() + std::size_t{slot} * kPageBytes; }
    Status give_back(std::uint32_t slot_number, Line line) override
    {
        auto* const to = page_at(guest_, line);
        if (userfault_.move(to, slot(slot_number), PageCount{1}) != PageCount{1}) {
            SPLITVISOR_TRY(userfault_.copy(to, slot(slot_number), PageCount{1}));
            drop(slot(slot_number), 1);
        }
        userfault_.wake(to, PageCount{1});
        return {};
    }
    void recycle(std::uint32_t first, std::uint32_t count) override { drop(slot(first), count); }
    const char* name() const override { return "move"; }

  private:
    void withdraw_run(std::span<WithdrawnPage> run)
    {
        // The kernel stops at a page that is pinned or shared; that one stays, the rest of the run is tried again.
        while (!run.empty()) {
            const auto moved = userfault_
                                   .move(slot(run.front().slot), page_at(guest_, run.front().line),
                                         PageCount{run.size()})
                                   .value();
            for (auto& page : run.first(moved)) page.taken = true;
            if (moved == run.size()) return;
            run = run.subspan(moved + 1);
        }
    }

    Userfault& userfault_;
    std::span<std::byte> guest_;
    Mapping slots_;
};

/// Write-protect, copy, drop. A writer in between waits on the protection and finds the page absent when it is woken.
class WriteProtectWithdrawal final : public Withdrawal {
  public:
    WriteProtectWithdrawal(Userfault& userfault, std::span<std::byte> guest, Mapping slots)
        : userfault_{userfault}, guest_{guest}, slots_{std::move(slots)}
    {
    }

    void withdraw(std::span<WithdrawnPage> pages) override
    {
        for (std::size_t i = 0; i < pages.size();) {
            const auto length = run_length(pages, i);
            auto* const at = page_at(guest_, pages[i].line);
            const bool is_protected = userfault_.protect(at, PageCount{length}, true).ok();
            if (is_protected) {
                copy_protected(slot(pages[i].slot), at, length * kPageBytes);
                drop(at, length);
            } else {
                (void)userfault_.protect(at, PageCount{length}, false);
            }
            for (auto& page : pages.subspan(i, length)) page.taken = is_protected;
            i += length;
        }
    }

    std::byte* slot(std::uint32_t slot) const override { return slots_.data() + std::size_t{slot} * kPageBytes; }
    Status give_back(std::uint32_t slot_number, Line line) override
    {
        SPLITVISOR_TRY(userfault_.copy(page_at(guest_, line), slot(slot_number), PageCount{1}));
        drop(slot(slot_number), 1);
        return {};
    }
    void recycle(std::uint32_t, std::uint32_t) override {}
    const char* name() const override { return "write-protect"; }

  private:
    Userfault& userfault_;
    std::span<std::byte> guest_;
    Mapping slots_;
};

/// Feature bits are not proof: takes one page of a trial mapping and looks whether its content came along.
bool move_works(Userfault& userfault)
{
    auto from = Mapping::anonymous(ByteCount{kPageBytes});
    auto to = Mapping::anonymous(ByteCount{kPageBytes});
    if (!userfault.features().move || !from || !to) return false;
    std::memset(from->data(), 0x5a, kPageBytes);
    if (!userfault.watch(from->bytes()) || !userfault.watch(to->bytes())) return false;
    if (userfault.move(to->data(), from->data(), PageCount{1}) != PageCount{1}) return false;
    return to->data()[0] == std::byte{0x5a} && to->data()[kPageBytes - 1] == std::byte{0x5a};
}

}  // namespace

Result<std::unique_ptr<Withdrawal>> Withdrawal::create(Mechanism mechanism, Userfault& userfault,
                                                       std::span<std::byte> guest, std::uint32_t slots)
{
    auto mapping = Mapping::anonymous(PageCount{slots == 0 ? 1 : slots}.bytes());
    if (!mapping) return mapping.error();
    if (mechanism != Mechanism::kWriteProtect && move_works(userfault)) {
        SPLITVISOR_TRY(userfault.watch(mapping->bytes()));
        return std::unique_ptr<Withdrawal>{
            std::make_unique<MoveWithdrawal>(userfault, guest, std::move(*mapping))};
    }
    if (mechanism == Mechanism::kMove) {
        return Error{ErrorCode::kUnsupported,
                     "this kernel can't move pages out of a guest (UFFDIO_MOVE, Linux 6.8); choose write-protect"};
    }
    if (!userfault.features().write_protect) {
        return Error{ErrorCode::kUnsupported,
                     "this kernel has neither UFFDIO_MOVE nor userfaultfd write protection (Linux 5.7): no ExCache "
                     "smaller than the memory is possible on it"};
    }
    return std::unique_ptr<Withdrawal>{
        std::make_unique<WriteProtectWithdrawal>(userfault, guest, std::move(*mapping))};
}

}  // namespace splitvisor::ept
