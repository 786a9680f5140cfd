#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "base/clock.h"
#include "base/mapping.h"
#include "tests/bench/child_process.h"
#include "tests/bench/textbook_pager.h"

namespace splitvisor::bench {
namespace {

/// As long as fabric/ polls.
constexpr std::uint64_t kSpinNs = 50'000;
constexpr std::uint64_t kReplyDeadlineMs = 10'000;

enum class Operation : std::uint32_t { kRead, kWrite };

/// One request at a time, whose page lies between the two processes.
struct Exchange {
    std::atomic<std::uint32_t> turn;  ///< whose: the client's (0) or the server's (1); the futex
    Operation operation;
    std::uint64_t line;
    alignas(kPageBytes) std::byte page[kPageBytes];
};

constexpr std::uint32_t kClient = 0;
constexpr std::uint32_t kServer = 1;

void give_turn(Exchange& exchange, std::uint32_t to)
{
    exchange.turn.store(to);
    ::syscall(SYS_futex, &exchange.turn, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void wait_for_turn(Exchange& exchange, std::uint32_t own, bool spins, std::uint64_t deadline_ms)
{
    if (spins) {
        for (const auto end_ns = now_ns() + kSpinNs; exchange.turn.load() != own && now_ns() < end_ns;) ::sched_yield();
    }
    while (exchange.turn.load() != own && now_ms() < deadline_ms) {
        const timespec limit{1, 0};
        ::syscall(SYS_futex, &exchange.turn, FUTEX_WAIT, 1 - own, &limit, nullptr, 0);
    }
}

void serve(Exchange& exchange, ByteCount size, bool spins)
{
    const auto memory = Mapping::anonymous(size);
    if (!memory) return;
    while (true) {
        wait_for_turn(exchange, kServer, spins, ~std::uint64_t{0});
        auto* const page = memory->data() + (exchange.line << kPageShift);
        if (exchange.operation == Operation::kRead) {
            std::memcpy(exchange.page, page, kPageBytes);
        } else {
            std::memcpy(page, exchange.page, kPageBytes);
        }
        give_turn(exchange, kClient);
    }
}

class ShmRemote final : public PlainRemote {
  public:
    ShmRemote(Exchange* exchange, ChildProcess server, bool spins)
        : exchange_{exchange}, server_{std::move(server)}, spins_{spins}
    {
    }
    ~ShmRemote() override { ::munmap(exchange_, sizeof *exchange_); }

    Status read(Line line, std::byte* into) override
    {
        SPLITVISOR_TRY(call(Operation::kRead, line));
        std::memcpy(into, exchange_->page, kPageBytes);
        return {};
    }
    Status write(Line line, const std::byte* from) override
    {
        std::memcpy(exchange_->page, from, kPageBytes);
        return call(Operation::kWrite, line);
    }

  private:
    Status call(Operation operation, Line line)
    {
        exchange_->operation = operation;
        exchange_->line = line.value();
        give_turn(*exchange_, kServer);
        wait_for_turn(*exchange_, kClient, spins_, now_ms() + kReplyDeadlineMs);
        if (exchange_->turn.load() == kClient) return {};
        return Error{ErrorCode::kTimeout, "the peer does not answer"};
    }

    Exchange* exchange_;
    ChildProcess server_;
    bool spins_;
};

}  // namespace

Result<std::unique_ptr<PlainRemote>> make_shm_remote(ByteCount memory, bool spins)
{
    void* const shared =
        ::mmap(nullptr, sizeof(Exchange), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return Error::from_errno("mmap of shared memory");
    auto* const exchange = static_cast<Exchange*>(shared);
    auto server = ChildProcess::start([&] { serve(*exchange, memory, spins); });
    if (!server) return server.error();
    return std::unique_ptr<PlainRemote>{std::make_unique<ShmRemote>(exchange, std::move(*server), spins)};
}

}  // namespace splitvisor::bench
