#include "controller/pcomponentd/run_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>

#include "base/fd.h"
#include "base/text.h"

namespace splitvisor::controller {

namespace {

constexpr std::size_t kMaxKernels = 1000;
constexpr std::size_t kMaxReasonBytes = 500;

bool is_plain_name(std::string_view name)
{
    return !name.empty() && name.size() <= 255 && name.front() != '.' &&
           std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~' && c != '/'; });
}

bool is_regular_file(const std::string& path)
{
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

Status write_private_file(const std::string& path, const std::string& text)
{
    const std::string fresh = path + ".new";
    const Fd file{::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    if (!file.valid()) return Error::from_errno("open " + fresh);
    SPLITVISOR_TRY(write_all(file.get(), std::as_bytes(std::span{text})));
    if (::rename(fresh.c_str(), path.c_str()) != 0) return Error::from_errno("rename " + fresh);
    return {};
}

template <typename Number>
bool take_number(std::string_view& text, Number& number)
{
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return error == std::errc{};
}

Result<std::string> resolve(const std::string& kernels_dir, const std::string& what, const std::string& file)
{
    if (!is_plain_name(file)) return Error{ErrorCode::kInvalid, what + " '" + file + "' is not a plain file name"};
    std::string path = kernels_dir + "/" + file;
    if (!is_regular_file(path)) return Error{ErrorCode::kNotFound, "there is no " + what + " '" + file + "'"};
    return path;
}

}  // namespace

Status RunDir::prepare(const Json& config) const
{
    if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST) return Error::from_errno("mkdir " + path_);
    for (const char* trace : {"/pid", "/exit", "/exit.json", "/control.sock", "/console.sock"}) {
        if (::unlink((path_ + trace).c_str()) != 0 && errno != ENOENT) {
            return Error::from_errno("unlink " + path_ + trace);
        }
    }
    const std::string log = path_ + "/vmm.log";
    if (::rename(log.c_str(), (log + ".1").c_str()) != 0 && errno != ENOENT) return Error::from_errno("rename " + log);
    return write_private_file(this->config(), config.pretty() + "\n");
}

Result<Json> RunDir::read_config() const
{
    const auto text = read_file(config(), ByteCount{16 * kMiB});
    if (!text) return text.error();
    return Json::parse(*text);
}

std::optional<ProcessIdentity> RunDir::process() const
{
    const auto text = read_file(path_ + "/pid", ByteCount{kKiB});
    if (!text) return std::nullopt;
    std::string_view rest = *text;
    ProcessIdentity identity;
    if (!take_number(rest, identity.pid) || !rest.starts_with(' ')) return std::nullopt;
    rest.remove_prefix(1);
    if (!take_number(rest, identity.start_time) || identity.pid <= 0) return std::nullopt;
    return identity;
}

std::optional<VmmEnding> RunDir::ending() const
{
    VmmEnding ending;
    const auto kept = read_file(path_ + "/exit", ByteCount{kKiB});
    std::string_view rest = kept ? std::string_view{*kept} : std::string_view{};
    const bool has_status = take_number(rest, ending.exit_status);
    const auto text = read_file(path_ + "/exit.json", ByteCount{64 * kKiB});
    const auto own = text ? Json::parse(*text) : Result<Json>{Json{}};
    if (own && own->if_object() != nullptr) {
        ending.reason = own->text("reason");
        if (!has_status) ending.exit_status = static_cast<int>(std::min<std::uint64_t>(own->number("status"), 255));
    } else if (!has_status) {
        return std::nullopt;
    }
    if (ending.reason.empty() && ending.exit_status != 0) ending.reason = last_log_line();
    return ending;
}

std::string RunDir::last_log_line() const
{
    const Fd file{::open((path_ + "/vmm.log").c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat status{};
    if (!file.valid() || ::fstat(file.get(), &status) != 0) return {};
    std::array<char, 4096> buffer{};
    const off_t start = std::max<off_t>(0, status.st_size - static_cast<off_t>(buffer.size()));
    const ssize_t size = ::pread(file.get(), buffer.data(), buffer.size(), start);
    if (size <= 0) return {};
    std::string_view text{buffer.data(), static_cast<std::size_t>(size)};
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
    if (const auto before = text.rfind('\n'); before != std::string_view::npos) text.remove_prefix(before + 1);
    return std::string{text.substr(0, kMaxReasonBytes)};
}

Status RunDir::remove() const
{
    // A VMM that ends takes its sockets away, and its keeper puts a file in place, at the same time: neither goes on for long.
    constexpr int kTries = 1000;
    std::error_code error;
    for (int i = 0; i < kTries; ++i) {
        std::filesystem::remove_all(path_, error);
        if (!error) return {};
        if (error != std::errc::no_such_file_or_directory && error != std::errc::directory_not_empty) break;
    }
    return Error{ErrorCode::kIo, "remove " + path_ + ": " + error.message()};
}

Result<Json> complete_config(Json spec, const std::string& kernels_dir, const std::string& run_dir)
{
    const auto kernel = resolve(kernels_dir, "kernel", spec.text("kernel"));
    if (!kernel) return kernel.error();
    spec.set("kernel", *kernel);
    if (spec.find("initrd") != nullptr) {
        const auto initrd = resolve(kernels_dir, "initrd", spec.text("initrd"));
        if (!initrd) return initrd.error();
        spec.set("initrd", *initrd);
    }
    spec.set("run_dir", run_dir);
    return spec;
}

std::vector<std::string> list_kernels(const std::string& kernels_dir)
{
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> folder{::opendir(kernels_dir.c_str()), ::closedir};
    if (!folder) return names;
    while (const dirent* entry = ::readdir(folder.get())) {
        if (names.size() >= kMaxKernels) break;
        if (is_plain_name(entry->d_name) && is_regular_file(kernels_dir + "/" + entry->d_name)) {
            names.emplace_back(entry->d_name);
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace splitvisor::controller
