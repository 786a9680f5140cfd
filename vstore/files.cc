#include "vstore/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/checked.h"

namespace splitvisor::vstore {

Result<Directory> Directory::open(const std::string& path)
{
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Error::from_errno("mkdir " + path);
    Fd fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid()) return Error::from_errno("open " + path);
    return Directory{path, std::move(fd)};
}

std::string Directory::describe(std::string_view call, const std::string& name) const
{
    return std::string{call} + " " + path_ + "/" + name;
}

Result<Fd> Directory::open_file(const std::string& name, int flags) const
{
    // Without O_NONBLOCK the open of a FIFO would wait for ever. With it, later, io_uring would answer
    // EAGAIN.
    Fd fd{::openat(fd_.get(), name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600)};
    if (!fd.valid()) return Error::from_errno(describe("open", name));
    if (::fcntl(fd.get(), F_SETFL, 0) != 0) return Error::from_errno(describe("fcntl", name));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return Error::from_errno(describe("fstat", name));
    if (!S_ISREG(status.st_mode)) return Error{ErrorCode::kInvalid, describe("not a regular file:", name)};
    return fd;
}

Status Directory::write_atomically(const std::string& name, std::span<const std::byte> content) const
{
    const auto temporary = name + ".tmp";
    auto file = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file) return file.error();
    SPLITVISOR_TRY(write_all(file->get(), content));
    if (::fsync(file->get()) != 0) return Error::from_errno(describe("fsync", temporary));
    if (::renameat(fd_.get(), temporary.c_str(), fd_.get(), name.c_str()) != 0) {
        return Error::from_errno(describe("rename", temporary));
    }
    return sync();
}

Status Directory::remove(const std::string& name) const
{
    if (::unlinkat(fd_.get(), name.c_str(), 0) != 0) {
        if (errno == ENOENT) return {};
        return Error::from_errno(describe("unlink", name));
    }
    return sync();
}

Status Directory::sync() const
{
    if (::fsync(fd_.get()) != 0) return Error::from_errno("fsync " + path_);
    return {};
}

Result<std::vector<std::string>> Directory::regular_files() const
{
    Fd copy{::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!copy.valid()) return Error::from_errno("open " + path_);
    const std::unique_ptr<DIR, int (*)(DIR*)> stream{::fdopendir(copy.get()), ::closedir};
    if (!stream) return Error::from_errno("fdopendir " + path_);
    static_cast<void>(copy.release());

    std::vector<std::string> names;
    errno = 0;
    while (const dirent* const entry = ::readdir(stream.get())) {
        struct stat status {};
        const bool seen = ::fstatat(fd_.get(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0;
        if (seen && S_ISREG(status.st_mode)) names.emplace_back(entry->d_name);
        errno = 0;
    }
    if (errno != 0) return Error::from_errno("readdir " + path_);
    return names;
}

Result<ByteCount> Directory::free_space() const
{
    struct statvfs status {};
    if (::fstatvfs(fd_.get(), &status) != 0) return Error::from_errno("fstatvfs " + path_);
    return ByteCount{std::uint64_t{status.f_bavail} * status.f_frsize};
}

Result<ByteCount> allocated_bytes(int fd)
{
    struct stat status {};
    if (::fstat(fd, &status) != 0) return Error::from_errno("fstat");
    return ByteCount{narrow<std::uint64_t>(status.st_blocks) * 512};
}

Result<ByteCount> file_size(int fd)
{
    struct stat status {};
    if (::fstat(fd, &status) != 0) return Error::from_errno("fstat");
    return ByteCount{narrow<std::uint64_t>(status.st_size)};
}

/// For file systems, or pairs of them, without copy_file_range.
static Status copy_through_memory(int from, int to, off_t offset, off_t end)
{
    constexpr off_t kChunkBytes = 1 << 20;
    std::vector<std::byte> buffer(kChunkBytes);
    while (offset < end) {
        const auto wanted = static_cast<std::size_t>(std::min(kChunkBytes, end - offset));
        const auto got = ::pread(from, buffer.data(), wanted, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return Error::from_errno("pread");
        if (got == 0) return Error{ErrorCode::kIo, "the file became shorter while it was copied"};
        for (ssize_t written = 0; written < got;) {
            const auto count = ::pwrite(to, buffer.data() + written, static_cast<std::size_t>(got - written),
                                        offset + written);
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return Error::from_errno("pwrite");
            written += count;
        }
        offset += got;
    }
    return {};
}

static Status copy_extent(int from, int to, off_t offset, off_t end)
{
    while (offset < end) {
        off_t in = offset;
        off_t out = offset;
        const auto copied = ::copy_file_range(from, &in, to, &out, static_cast<std::size_t>(end - offset), 0);
        if (copied < 0 && errno == EINTR) continue;
        if (copied < 0 && errno == ENOSPC) return Error::from_errno("copy_file_range");
        if (copied <= 0) return copy_through_memory(from, to, offset, end);
        offset += copied;
    }
    return {};
}

Status copy_sparse(int from, int to, ByteCount length)
{
    const auto end = narrow<off_t>(length.value());
    if (file_size(from).ok() && *file_size(from) == length && ::ioctl(to, FICLONE, from) == 0) return {};
    for (off_t position = 0; position < end;) {
        const off_t data = ::lseek(from, position, SEEK_DATA);
        if (data < 0 && errno == ENXIO) break;  // only a hole is left
        if (data < 0) return Error::from_errno("lseek SEEK_DATA");
        if (data >= end) break;
        const off_t hole = ::lseek(from, data, SEEK_HOLE);
        if (hole < 0) return Error::from_errno("lseek SEEK_HOLE");
        SPLITVISOR_TRY(copy_extent(from, to, data, std::min(hole, end)));
        position = hole;
    }
    if (::ftruncate(to, end) != 0) return Error::from_errno("ftruncate");
    return {};
}

}  // namespace splitvisor::vstore
