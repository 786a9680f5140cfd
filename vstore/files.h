#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/units.h"

namespace splitvisor::vstore {

/// A directory that files are made and replaced in so that a crash or a power cut leaves the old or the new,
/// never a half. Names are plain file names. Thread-safe.
class Directory {
  public:
    /// Makes the directory, private to its owner, where it does not exist.
    static Result<Directory> open(const std::string& path);

    [[nodiscard]] Result<Fd> open_file(const std::string& name, int flags) const;
    /// Durable, content and name, when it returns. Uses the name `name`.tmp meanwhile.
    [[nodiscard]] Status write_atomically(const std::string& name, std::span<const std::byte> content) const;
    /// Durable when it returns. A file that is not there is no error.
    [[nodiscard]] Status remove(const std::string& name) const;
    /// Makes names created or removed so far durable.
    [[nodiscard]] Status sync() const;
    /// The names of all regular files, unordered.
    [[nodiscard]] Result<std::vector<std::string>> regular_files() const;
    [[nodiscard]] Result<ByteCount> free_space() const;

  private:
    Directory(std::string path, Fd fd) : path_{std::move(path)}, fd_{std::move(fd)} {}
    [[nodiscard]] std::string describe(std::string_view call, const std::string& name) const;

    std::string path_;
    Fd fd_;
};

/// What a file occupies on the medium.
[[nodiscard]] Result<ByteCount> allocated_bytes(int fd);
[[nodiscard]] Result<ByteCount> file_size(int fd);

/// Copies [0, length) of one file to another, which is empty. Holes stay holes, and blocks are shared where
/// the file system can.
[[nodiscard]] Status copy_sparse(int from, int to, ByteCount length);

}  // namespace splitvisor::vstore
