#include "base/mapping.h"

#include <sys/mman.h>

namespace splitvisor {

Result<Mapping> Mapping::anonymous(ByteCount size)
{
    const std::size_t bytes = PageCount::of(size).bytes().value();
    void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return Error::from_errno("mmap of anonymous memory");
    Mapping mapping{static_cast<std::byte*>(base), bytes};
    if (::madvise(base, bytes, MADV_NOHUGEPAGE) != 0 && errno != EINVAL) {
        return Error::from_errno("madvise(MADV_NOHUGEPAGE)");
    }
    return mapping;
}

Result<Mapping> Mapping::shared(int fd, ByteCount size, std::uint64_t offset)
{
    void* base = ::mmap(nullptr, size.value(), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                        static_cast<off_t>(offset));
    if (base == MAP_FAILED) return Error::from_errno("mmap");
    return Mapping{static_cast<std::byte*>(base), size.value()};
}

void Mapping::reset()
{
    if (base_ != nullptr) ::munmap(base_, size_);
    base_ = nullptr;
    size_ = 0;
}

}  // namespace splitvisor
