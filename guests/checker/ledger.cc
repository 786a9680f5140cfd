#include "checker/ledger.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/fd.h"

namespace splitvisor::checker {

namespace {

constexpr std::uint64_t kZeroBit = std::uint64_t{1} << 63;

class MemoryLedger final : public Ledger {
  public:
    explicit MemoryLedger(std::uint64_t groups) : groups_(groups) {}

    Status load(GroupIndex group, GroupEntries& entries) override
    {
        entries = groups_[group.value()];
        return {};
    }

    Status store(GroupIndex group, const GroupEntries& entries) override
    {
        groups_[group.value()] = entries;
        return {};
    }

    [[nodiscard]] std::uint64_t batch() const override { return 1; }

  private:
    std::vector<GroupEntries> groups_;
};

/// O_DIRECT wants the memory aligned as well.
struct alignas(kPageBytes) Block {
    GroupEntries entries;
};

class DeviceLedger final : public Ledger {
  public:
    DeviceLedger(Fd fd, bool direct) : fd_{std::move(fd)}, direct_{direct} {}

    Status load(GroupIndex group, GroupEntries& entries) override
    {
        Block block{};
        if (::pread(fd_.get(), &block, sizeof block, offset(group)) != static_cast<ssize_t>(sizeof block)) {
            return Error::from_errno("cannot read the ledger");
        }
        entries = block.entries;
        return {};
    }

    Status store(GroupIndex group, const GroupEntries& entries) override
    {
        const Block block{entries};
        if (::pwrite(fd_.get(), &block, sizeof block, offset(group)) != static_cast<ssize_t>(sizeof block)) {
            return Error::from_errno("cannot write the ledger");
        }
        return direct_ ? Status{} : drop_cache(group);
    }

    [[nodiscard]] std::uint64_t batch() const override { return 16; }

  private:
    static off_t offset(GroupIndex group) { return static_cast<off_t>(group.value() * sizeof(Block)); }

    Status drop_cache(GroupIndex group)
    {
        if (::fdatasync(fd_.get()) != 0) return Error::from_errno("cannot sync the ledger");
        static_cast<void>(::posix_fadvise(fd_.get(), offset(group), sizeof(Block), POSIX_FADV_DONTNEED));
        return {};
    }

    Fd fd_;
    bool direct_;
};

}  // namespace

Entry Entry::of(const Pattern& pattern, PageIndex page, Content content)
{
    return {content.version.value() | (content.zero ? kZeroBit : 0), pattern.checksum(page, content)};
}

Content Entry::content() const
{
    return {Version{version_and_zero & ~kZeroBit}, (version_and_zero & kZeroBit) != 0};
}

bool Entry::agrees(const Pattern& pattern, PageIndex page) const
{
    return checksum == pattern.checksum(page, content());
}

std::unique_ptr<Ledger> make_memory_ledger(std::uint64_t groups)
{
    return std::make_unique<MemoryLedger>(groups);
}

Result<std::unique_ptr<Ledger>> open_ledger(const std::string& path, std::uint64_t groups)
{
    bool direct = true;
    Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT, 0600)};
    if (!fd.valid() && errno == EINVAL) {
        direct = false;
        fd = Fd{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    }
    if (!fd.valid()) return Error::from_errno("cannot open the ledger " + path);

    const off_t wanted = static_cast<off_t>(groups * sizeof(Block));
    const off_t size = ::lseek(fd.get(), 0, SEEK_END);
    // A block device keeps its size; a file grows to what is needed.
    if (size < wanted && ::ftruncate(fd.get(), wanted) != 0) {
        return Error{ErrorCode::kNoRoom,
                     "the ledger " + path + " needs " + std::to_string(wanted) + " bytes"};
    }
    return std::unique_ptr<Ledger>{std::make_unique<DeviceLedger>(std::move(fd), direct)};
}

}  // namespace splitvisor::checker
