#include "tests/bench/textbook_pager.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mapping.h"
#include "base/thread.h"
#include "ept/userfault.h"
#include "tests/bench/child_process.h"

namespace splitvisor::bench {
namespace {

enum class Operation : std::uint32_t { kRead, kWrite };
struct Request {
    Operation operation;
    std::uint32_t reserved;
    std::uint64_t line;
};
using Acknowledgement = std::uint64_t;

/// As long as fabric/ polls.
constexpr std::uint64_t kSpinNs = 50'000;
constexpr time_t kReplyDeadlineSeconds = 10;

/// One end of the connection.
class PlainSocket {
  public:
    PlainSocket(Fd fd, bool spins) : fd_{std::move(fd)}, spins_{spins}
    {
        const int on = 1;
        SPLITVISOR_CHECK(::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    }

    [[nodiscard]] Status send(std::array<iovec, 2> parts) const
    {
        std::size_t first = 0;
        while (first < parts.size()) {
            msghdr header{};
            header.msg_iov = parts.data() + first;
            header.msg_iovlen = parts.size() - first;
            const auto count = ::sendmsg(fd_.get(), &header, MSG_NOSIGNAL);
            if (count < 0) return Error::from_errno("sendmsg");
            auto sent = static_cast<std::size_t>(count);
            for (; first < parts.size() && sent >= parts[first].iov_len; ++first) sent -= parts[first].iov_len;
            if (first == parts.size()) break;
            parts[first].iov_base = static_cast<std::byte*>(parts[first].iov_base) + sent;
            parts[first].iov_len -= sent;
        }
        return {};
    }

    [[nodiscard]] Status receive(void* into, std::size_t size) const
    {
        auto* at = static_cast<std::byte*>(into);
        while (size > 0) {
            if (spins_) wait_spinning();
            // Asleep in recv itself: one system call and one wake-up for all of it.
            const auto count = ::recv(fd_.get(), at, size, MSG_WAITALL);
            if (count == 0) return Error{ErrorCode::kUnavailable, "the peer has gone"};
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return Error::from_errno("recv");
            at += count;
            size -= static_cast<std::size_t>(count);
        }
        return {};
    }

    void set_deadline(time_t seconds) const
    {
        const timeval limit{.tv_sec = seconds, .tv_usec = 0};
        SPLITVISOR_CHECK(::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    }

  private:
    void wait_spinning() const
    {
        const auto end_ns = now_ns() + kSpinNs;
        do {
            pollfd waiting{fd_.get(), POLLIN, 0};
            if (::poll(&waiting, 1, 0) > 0) return;
            ::sched_yield();
        } while (now_ns() < end_ns);
    }

    Fd fd_;
    bool spins_;
};

iovec part(const void* from, std::size_t size) { return {const_cast<void*>(from), size}; }

Status serve_request(const PlainSocket& socket, std::span<std::byte> memory)
{
    Request request{};
    SPLITVISOR_TRY(socket.receive(&request, sizeof request));
    if (request.line >= memory.size() >> kPageShift) return Error{ErrorCode::kInvalid, "no such page"};
    auto* page = memory.data() + (request.line << kPageShift);
    if (request.operation == Operation::kRead) return socket.send({part(page, kPageBytes), {}});
    SPLITVISOR_TRY(socket.receive(page, kPageBytes));
    const Acknowledgement done = request.line;
    return socket.send({part(&done, sizeof done), {}});
}

void serve(const Fd& listener, ByteCount size, bool spins)
{
    const auto memory = Mapping::anonymous(size);
    Fd peer{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    if (!memory || !peer.valid()) return;
    const PlainSocket socket{std::move(peer), spins};
    while (serve_request(socket, memory->bytes())) {
    }
}

class TcpRemote final : public PlainRemote {
  public:
    TcpRemote(ChildProcess server, PlainSocket socket) : server_{std::move(server)}, socket_{std::move(socket)}
    {
        socket_.set_deadline(kReplyDeadlineSeconds);
    }

    Status read(Line line, std::byte* into) override
    {
        const Request request{Operation::kRead, 0, line.value()};
        SPLITVISOR_TRY(socket_.send({part(&request, sizeof request), {}}));
        return socket_.receive(into, kPageBytes);
    }

    Status write(Line line, const std::byte* from) override
    {
        const Request request{Operation::kWrite, 0, line.value()};
        SPLITVISOR_TRY(socket_.send({part(&request, sizeof request), part(from, kPageBytes)}));
        Acknowledgement done{};
        return socket_.receive(&done, sizeof done);
    }

  private:
    ChildProcess server_;
    PlainSocket socket_;
};

class MemoryRemote final : public PlainRemote {
  public:
    explicit MemoryRemote(Mapping pages) : pages_{std::move(pages)} {}
    Status read(Line line, std::byte* into) override
    {
        std::memcpy(into, pages_.data() + line.byte_offset(), kPageBytes);
        return {};
    }
    Status write(Line line, const std::byte* from) override
    {
        std::memcpy(pages_.data() + line.byte_offset(), from, kPageBytes);
        return {};
    }

  private:
    Mapping pages_;
};

Result<std::unique_ptr<PlainRemote>> make_tcp_remote(ByteCount memory, bool spins)
{
    Fd listener{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const name = reinterpret_cast<sockaddr*>(&address);
    if (!listener.valid() || ::bind(listener.get(), name, length) != 0 || ::listen(listener.get(), 1) != 0 ||
        ::getsockname(listener.get(), name, &length) != 0) {
        return Error::from_errno("listening on loopback");
    }
    auto server = ChildProcess::start([&] { serve(listener, memory, spins); });
    if (!server) return server.error();
    Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!socket.valid() || ::connect(socket.get(), name, length) != 0) {
        return Error::from_errno("connecting to the plain page server");
    }
    return std::unique_ptr<PlainRemote>{
        std::make_unique<TcpRemote>(std::move(*server), PlainSocket{std::move(socket), spins})};
}

class TextbookPager final : public PagedMemory {
  public:
    TextbookPager(Mapping memory, PageCount local, ept::Userfault userfault, std::unique_ptr<PlainRemote> remote)
        : memory_{std::move(memory)},
          userfault_{std::move(userfault)},
          remote_{std::move(remote)},
          is_stored_(memory_.size() >> kPageShift),
          is_local_(memory_.size() >> kPageShift),
          oldest_(local.value())
    {
        thread_ = Thread{"textbook", [this] { run(); }};
    }

    /// Touching the page behind the memory brings the thread out of its read.
    ~TextbookPager() override
    {
        stopping_.store(true);
        *static_cast<volatile std::byte*>(memory_.data() + memory_.size() - kPageBytes) = std::byte{1};
    }

    std::span<std::byte> memory() const override { return memory_.bytes().first(memory_.size() - kPageBytes); }

    PagingCounters counters() const override
    {
        const auto fetched = fetched_.load(std::memory_order_relaxed);
        return {.remote_faults = fetched,
                .fetched = fetched,
                .written_back = written_back_.load(std::memory_order_relaxed),
                .room_stalls = written_back_.load(std::memory_order_relaxed)};
    }

  private:
    void run()
    {
        while (!stopping_.load()) {
            const auto event = userfault_.read_event();
            if (!event) end_for_lost_memory(event.error());
            if (!*event) continue;
            const auto offset = static_cast<std::uint64_t>((*event)->address - memory_.data());
            if (const auto status = serve(Line{static_cast<std::uint32_t>(offset >> kPageShift)}); !status) {
                end_for_lost_memory(status.error());
            }
        }
    }

    Status serve(Line line)
    {
        auto* page = memory_.data() + line.byte_offset();
        // Two threads may fault on one page.
        if (is_local_[line.value()]) {
            userfault_.wake(page, PageCount{1});
            return {};
        }
        if (count_ == oldest_.size()) SPLITVISOR_TRY(evict());
        if (is_stored_[line.value()]) {
            fetched_.fetch_add(1, std::memory_order_relaxed);
            SPLITVISOR_TRY(remote_->read(line, landing_.data()));
        } else {
            landing_.fill(std::byte{0});
        }
        SPLITVISOR_TRY(userfault_.copy(page, landing_.data(), PageCount{1}));
        is_local_[line.value()] = true;
        oldest_[(first_ + count_++) % oldest_.size()] = line;
        return {};
    }

    Status evict()
    {
        const auto line = oldest_[first_];
        first_ = (first_ + 1) % oldest_.size();
        --count_;
        auto* page = memory_.data() + line.byte_offset();
        SPLITVISOR_TRY(remote_->write(line, page));
        is_stored_[line.value()] = true;
        is_local_[line.value()] = false;
        written_back_.fetch_add(1, std::memory_order_relaxed);
        if (::madvise(page, kPageBytes, MADV_DONTNEED) != 0) return Error::from_errno("madvise(MADV_DONTNEED)");
        return {};
    }

    Mapping memory_;  ///< and one page more
    ept::Userfault userfault_;
    std::unique_ptr<PlainRemote> remote_;
    std::vector<bool> is_stored_;
    std::vector<bool> is_local_;
    std::vector<Line> oldest_;  ///< a ring of the local pages in the order of their arrival
    std::size_t first_ = 0;
    std::size_t count_ = 0;
    alignas(kPageBytes) std::array<std::byte, kPageBytes> landing_{};
    std::atomic<std::uint64_t> fetched_{0};
    std::atomic<std::uint64_t> written_back_{0};
    std::atomic<bool> stopping_{false};
    Thread thread_;
};

}  // namespace

Result<std::unique_ptr<PlainRemote>> make_plain_remote(PlainKind kind, ByteCount memory)
{
    switch (kind) {
    case PlainKind::kTcpSleeping: return make_tcp_remote(memory, false);
    case PlainKind::kTcpSpinning: return make_tcp_remote(memory, true);
    case PlainKind::kShmSleeping: return make_shm_remote(memory, false);
    case PlainKind::kShmSpinning: return make_shm_remote(memory, true);
    case PlainKind::kMemory: {
        auto pages = Mapping::anonymous(memory);
        if (!pages) return pages.error();
        return std::unique_ptr<PlainRemote>{std::make_unique<MemoryRemote>(std::move(*pages))};
    }
    }
    return Error{ErrorCode::kInvalid, "no such remote"};
}

Result<std::unique_ptr<PagedMemory>> make_textbook_pager(ByteCount memory, PageCount local,
                                                         std::unique_ptr<PlainRemote> remote)
{
    auto mapping = Mapping::anonymous(memory + ByteCount{kPageBytes});
    if (!mapping) return mapping.error();
    auto userfault = ept::Userfault::create();
    if (!userfault) return userfault.error();
    SPLITVISOR_TRY(userfault->watch(mapping->bytes()));
    return std::unique_ptr<PagedMemory>{
        std::make_unique<TextbookPager>(std::move(*mapping), local, std::move(*userfault), std::move(remote))};
}

}  // namespace splitvisor::bench
