#include "tests/bench/in_process_store.h"

#include <array>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/mapping.h"

namespace splitvisor::bench {
namespace {

using remote_mem::PageRead;
using remote_mem::PageSession;
using remote_mem::PageStore;
using remote_mem::PageWrite;

class InProcessStore final : public PageStore {
  public:
    explicit InProcessStore(Mapping pages)
        : pages_{std::move(pages)}, records_(pages_.size() / kPageBytes)
    {
    }

    Result<std::unique_ptr<PageSession>> open_session() override
    {
        return std::unique_ptr<PageSession>{std::make_unique<Session>(*this)};
    }

  private:
    struct Record {
        Version version{};
        bool present = false;
    };

    class Session final : public PageSession {
      public:
        explicit Session(InProcessStore& store) : store_{store} {}

        Status read(std::span<PageRead> pages) override
        {
            for (auto& page : pages) SPLITVISOR_TRY(store_.read(page));
            return {};
        }
        Status write(std::span<const PageWrite> pages) override
        {
            for (const auto& page : pages) SPLITVISOR_TRY(store_.write(page.line, page.version, page.from));
            return {};
        }
        Status drop(std::span<const Line> lines, Version version) override
        {
            for (const auto line : lines) SPLITVISOR_TRY(store_.write(line, version, nullptr));
            return {};
        }

      private:
        InProcessStore& store_;
    };

    Status read(PageRead& page)
    {
        SPLITVISOR_TRY(check(page.line));
        const std::lock_guard lock{lock_of(page.line)};
        const auto& record = records_[page.line.value()];
        page.present = record.present;
        page.version = record.version;
        if (record.present) std::memcpy(page.into, pages_.data() + page.line.byte_offset(), kPageBytes);
        return {};
    }

    /// No bytes: a drop.
    Status write(Line line, Version version, const std::byte* from)
    {
        SPLITVISOR_TRY(check(line));
        const std::lock_guard lock{lock_of(line)};
        auto& record = records_[line.value()];
        if (version < record.version) return {};
        record = {version, from != nullptr};
        if (from != nullptr) std::memcpy(pages_.data() + line.byte_offset(), from, kPageBytes);
        return {};
    }

    [[nodiscard]] Status check(Line line) const
    {
        if (line.value() < records_.size()) return {};
        return Error{ErrorCode::kNotFound, "line " + std::to_string(line.value()) + " is not in the store"};
    }
    std::mutex& lock_of(Line line) { return locks_[line.value() / 16 % locks_.size()]; }

    Mapping pages_;
    std::vector<Record> records_;
    std::array<std::mutex, 64> locks_;
};

}  // namespace

Result<std::unique_ptr<PageStore>> make_in_process_store(ByteCount memory)
{
    auto pages = Mapping::anonymous(memory);
    if (!pages) return pages.error();
    return std::unique_ptr<PageStore>{std::make_unique<InProcessStore>(std::move(*pages))};
}

}  // namespace splitvisor::bench
