#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/mapping.h"
#include "tests/fakes/temporary_directory.h"
#include "vmm/guest_memory.h"

namespace splitvisor::vmm::test {

template <typename T>
T take(Result<T> result)
{
    if (!result) BOOST_FAIL(result.error().message());
    return std::move(result).value();
}

/// Waits for what must come; the deadline is for a machine that is busy with other things.
template <typename Condition>
bool eventually(Condition condition)
{
    using namespace std::chrono_literals;
    for (int i = 0; i < 15'000; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(2ms);
    }
    return false;
}

inline bool contains(std::string_view text, std::string_view part)
{
    return text.find(part) != std::string_view::npos;
}

/// A folder that goes with its contents.
class TemporaryFolder : public fakes::TemporaryDirectory {
  public:
    std::string write(std::string_view name, std::string_view content) const
    {
        const auto path = *this / name;
        std::ofstream{path, std::ios::binary} << content;
        return path;
    }
    [[nodiscard]] std::string read(std::string_view name) const
    {
        std::ifstream file{*this / name, std::ios::binary};
        return {std::istreambuf_iterator<char>{file}, {}};
    }
    [[nodiscard]] bool has(std::string_view name) const { return std::filesystem::exists(*this / name); }
};

/// Guest RAM of this process, all zero at first. Large ones cost only what is touched.
class LocalMemory {
  public:
    explicit LocalMemory(std::uint64_t bytes)
        : mapping_{take(Mapping::anonymous(ByteCount{bytes}))}, memory_{mapping_.bytes(), ByteCount{bytes}}
    {
    }
    const GuestMemory* operator->() const { return &memory_; }
    const GuestMemory& operator*() const { return memory_; }

    [[nodiscard]] std::vector<std::byte> bytes(Gpa where, std::size_t count) const
    {
        std::vector<std::byte> content(count);
        BOOST_REQUIRE(memory_.read(where, std::span{content}));
        return content;
    }
    template <typename T>
    [[nodiscard]] T at(Gpa where) const
    {
        const auto value = memory_.read<T>(where);
        BOOST_REQUIRE(value.has_value());
        return *value;
    }
    [[nodiscard]] std::string text(Gpa where) const
    {
        std::string text;
        for (auto at_byte = at<char>(where); at_byte != 0; at_byte = at<char>(where)) {
            text += at_byte;
            where = where + 1;
        }
        return text;
    }

  private:
    Mapping mapping_;
    GuestMemory memory_;
};

/// A client of one of the VMM's sockets. Every wait ends after a generous while.
class SocketClient {
  public:
    explicit SocketClient(const std::string& path) : fd_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)}
    {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        BOOST_REQUIRE(path.size() < sizeof address.sun_path);
        std::memcpy(address.sun_path, path.data(), path.size());
        const timeval limit{30, 0};
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        connected_ = ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    }
    [[nodiscard]] bool connected() const { return connected_; }
    [[nodiscard]] int fd() const { return fd_.get(); }

    /// False where the other side is gone.
    bool send(std::string_view text)
    {
        while (!text.empty()) {
            const auto sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
            if (sent <= 0) return false;
            text.remove_prefix(static_cast<std::size_t>(sent));
        }
        return true;
    }
    /// Up to and without the newline; what came so far where the stream ends before it.
    std::string line()
    {
        while (buffer_.find('\n') == std::string::npos && receive()) {
        }
        const auto end = std::min(buffer_.find('\n'), buffer_.size());
        auto text = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return text;
    }
    /// At least so many bytes, or less where the stream ends before.
    std::string bytes(std::size_t least)
    {
        while (buffer_.size() < least && receive()) {
        }
        return std::exchange(buffer_, {});
    }
    /// Everything up to and with `mark`.
    std::string until(std::string_view mark)
    {
        while (!contains(buffer_, mark) && receive()) {
        }
        const auto at = buffer_.find(mark);
        const auto end = at == std::string::npos ? buffer_.size() : at + mark.size();
        auto text = buffer_.substr(0, end);
        buffer_.erase(0, end);
        return text;
    }
    /// True once the other side has closed.
    bool ended()
    {
        while (receive()) {
        }
        return ended_;
    }

  private:
    bool receive()
    {
        char chunk[65536];
        const auto count = ::recv(fd_.get(), chunk, sizeof chunk, 0);
        if (count > 0) buffer_.append(chunk, static_cast<std::size_t>(count));
        ended_ = count == 0 || (count < 0 && errno == ECONNRESET);
        return count > 0;
    }

    Fd fd_;
    bool connected_ = false;
    bool ended_ = false;
    std::string buffer_;
};

}  // namespace splitvisor::vmm::test
