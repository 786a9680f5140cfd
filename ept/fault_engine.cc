#include "ept/fault_engine.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <vector>

#include "base/idle_latency.h"
#include "base/text.h"
#include "base/thread.h"
#include "ept/engine_state.h"
#include "ept/evictor.h"
#include "ept/fault_handler.h"

namespace splitvisor::ept {

using excache::LineState;

namespace {

/// Interrupts a handler's read so that it sees that the engine stops. Nobody else uses it.
int wake_signal() { return SIGRTMIN + 1; }

void install_wake_signal()
{
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigemptyset(&action.sa_mask);
    SPLITVISOR_CHECK(::sigaction(wake_signal(), &action, nullptr) == 0);
}

constexpr ByteCount kMinimumExcache{4 * kMiB};
constexpr ByteCount kMaximumMemory{1024 * kGiB};

Status validate(const EngineOptions& options)
{
    const auto bad = [](std::string text) { return Error{ErrorCode::kInvalid, std::move(text)}; };
    if (options.memory.value() == 0 || options.memory.value() % kPageBytes != 0) {
        return bad("the memory's size must be a multiple of 4 KiB");
    }
    if (options.memory > kMaximumMemory) return bad("the memory is larger than " + format_size(kMaximumMemory));
    if (options.excache > options.memory) {
        return bad("the ExCache (" + format_size(options.excache) + ") is larger than the memory (" +
                   format_size(options.memory) + ")");
    }
    if (options.excache < options.memory && options.excache < kMinimumExcache) {
        return bad("the ExCache (" + format_size(options.excache) + ") is smaller than the minimum of " +
                   format_size(kMinimumExcache));
    }
    if (options.handlers == 0 || options.handlers > 256) return bad("1 to 256 fault handlers are possible");
    return {};
}

class Engine final : public FaultEngine {
  public:
    static Result<std::unique_ptr<FaultEngine>> start(const EngineOptions& options, remote_mem::PageStore& store,
                                                      std::function<void(const Error&)> on_fatal)
    {
        SPLITVISOR_TRY(validate(options));
        auto guest = Mapping::anonymous(options.memory);
        if (!guest) return guest.error();
        auto landed = Mapping::anonymous(PageCount{excache::LandedLines::kSlots}.bytes());
        if (!landed) return landed.error();
        auto userfault = Userfault::create();
        if (!userfault) return userfault.error();
        auto state = std::make_unique<EngineState>(options, std::move(*guest), std::move(*landed), std::move(*userfault),
                                                   std::move(on_fatal));
        SPLITVISOR_TRY(state->userfault.watch(state->guest.bytes()));
        auto readers = UserfaultReaders::create(state->userfault);
        if (!readers) return readers.error();
        state->readers = std::move(*readers);
        auto withdrawal = make_withdrawal(*state);
        if (!withdrawal) return withdrawal.error();

        auto engine = std::unique_ptr<Engine>{new Engine{std::move(state), std::move(*withdrawal)}};
        SPLITVISOR_TRY(engine->start_threads(store));
        return std::unique_ptr<FaultEngine>{std::move(engine)};
    }

    ~Engine() override
    {
        state_->stop();
        for (auto& handler : handlers_) {
            // A signal that comes just before the read is lost, so it is sent until it is heard.
            while (!handler.ended->load(std::memory_order_acquire)) {
                ::pthread_kill(handler.thread.handle(), wake_signal());
                ::usleep(1000);
            }
        }
    }

    std::span<std::byte> memory() const override { return state_->guest.bytes(); }

    void forget(Line first, std::uint32_t count) override
    {
        const auto end = std::min<std::uint64_t>(std::uint64_t{first.value()} + count, state_->table.size());
        for (auto i = first.value(); i < end && !state_->stopping();) {
            const auto mapped = claim_mapped_run(Line{i}, static_cast<std::uint32_t>(end - i));
            if (mapped != 0) {
                forget_mapped(Line{i}, mapped);
                i += mapped;
            } else {
                forget_unmapped(Line{i});
                ++i;
            }
        }
    }

    EngineStats stats() const override;

  private:
    struct HandlerThread {
        std::unique_ptr<FaultHandler> handler;
        std::unique_ptr<std::atomic<bool>> ended = std::make_unique<std::atomic<bool>>(false);
        Thread thread;
    };

    Engine(std::unique_ptr<EngineState> state, std::unique_ptr<Withdrawal> withdrawal)
        : state_{std::move(state)}, withdrawal_{std::move(withdrawal)}
    {
    }

    static Result<std::unique_ptr<Withdrawal>> make_withdrawal(EngineState& state)
    {
        if (!state.budget.evicts()) return std::unique_ptr<Withdrawal>{};
        return Withdrawal::create(state.options.mechanism, state.userfault, state.guest.bytes(),
                                  state.budget.victim_slots());
    }

    Status start_threads(remote_mem::PageStore& store)
    {
        install_wake_signal();
        handlers_.reserve(state_->options.handlers);
        for (std::uint32_t i = 0; i < state_->options.handlers; ++i) {
            auto session = store.open_session();
            if (!session) return session.error();
            auto handler = FaultHandler::create(*state_, withdrawal_.get(), std::move(*session));
            if (!handler) return handler.error();
            auto& entry = handlers_.emplace_back();
            entry.handler = std::move(*handler);
            entry.thread = Thread{"fault-" + std::to_string(i), [raw = entry.handler.get(), ended = entry.ended.get()] {
                                      raw->run();
                                      ended->store(true, std::memory_order_release);
                                  }};
        }
        if (!withdrawal_) return {};
        auto session = store.open_session();
        if (!session) return session.error();
        evictor_ = std::make_unique<Evictor>(*state_, *withdrawal_, std::move(*session));
        evictor_thread_ = Thread{"evictor", [this] { evictor_->run(); }};
        return {};
    }

    std::uint32_t claim_mapped_run(Line first, std::uint32_t limit)
    {
        std::uint32_t count = 0;
        while (count < limit && state_->table.claim(first + count, LineState::kResident, LineState::kForgetting)) ++count;
        return count;
    }

    void forget_mapped(Line first, std::uint32_t count)
    {
        SPLITVISOR_CHECK(::madvise(state_->page(first), count * kPageBytes, MADV_DONTNEED) == 0);
        for (std::uint32_t i = 0; i < count; ++i) finish_forget(first + i);
        state_->give_room(count);
    }

    /// The line is at rest elsewhere, or some thread is at work on it and will put it to rest.
    void forget_unmapped(Line line)
    {
        while (!state_->stopping()) {
            const auto seen = state_->table.state(line);
            if (seen == LineState::kZero) return;
            if (seen == LineState::kResident) {
                if (claim_mapped_run(line, 1) == 1) return forget_mapped(line, 1);
            } else if (seen == LineState::kRemote || seen == LineState::kVictim || seen == LineState::kLanded) {
                if (!state_->table.claim(line, seen, LineState::kForgetting)) continue;
                if (seen == LineState::kVictim) state_->counters.victim_lines.fetch_sub(1, std::memory_order_relaxed);
                if (seen == LineState::kLanded) {
                    state_->landed.free(state_->table.slot(line));
                    state_->give_room(1);
                }
                return finish_forget(line);
            } else {
                ::usleep(20);
            }
        }
    }

    void finish_forget(Line line)
    {
        // The wish must be there before the line is: whoever evicts the line's next content takes it away.
        if (state_->drop_wanted[line.value()].exchange(1, std::memory_order_acq_rel) == 0) {
            state_->drops_waiting.fetch_add(1, std::memory_order_release);
        }
        if (state_->table.release(line, LineState::kZero)) state_->userfault.wake(state_->page(line), PageCount{1});
        EngineCounters::raise(state_->counters.forgotten);
    }

    std::unique_ptr<EngineState> state_;
    std::unique_ptr<Withdrawal> withdrawal_;  ///< none where nothing is ever evicted
    std::unique_ptr<Evictor> evictor_;
    std::vector<HandlerThread> handlers_;
    Thread evictor_thread_;
    IdleLatency idle_latency_{[this] { return state_->counters.faults.load(std::memory_order_relaxed); }};
};

EngineStats Engine::stats() const
{
    const auto& counters = state_->counters;
    const auto& budget = state_->budget;
    EngineStats stats;
    stats.faults = counters.faults;
    stats.remote_faults = counters.remote_faults;
    stats.remote_pages = counters.remote_pages;
    stats.zero_fills = counters.zero_fills;
    stats.victim_hits = counters.victim_hits;
    stats.ahead_windows = counters.ahead_windows;
    stats.ahead_pages = counters.ahead_pages;
    stats.ahead_reached = counters.ahead_reached;
    stats.in_flight_waits = counters.in_flight_waits;
    stats.evicted_clean = counters.evicted_clean;
    stats.evicted_zero = counters.evicted_zero;
    stats.written_back = counters.written_back;
    stats.room_stalls = counters.room_stalls;
    stats.retries = counters.retries;
    stats.forgotten = counters.forgotten;
    stats.resident_lines = budget.used();
    stats.victim_lines = counters.victim_lines;
    stats.capacity_lines = budget.capacity();
    stats.resident_peak = budget.peak();
    stats.fault_ns_total = counters.fault_ns_total;
    stats.mechanism = withdrawal_ ? withdrawal_->name() : "none";
    stats.waiting_for = state_->waiting();
    return stats;
}

}  // namespace

Result<std::unique_ptr<FaultEngine>> FaultEngine::start(const EngineOptions& options, remote_mem::PageStore& store,
                                                        std::function<void(const Error&)> on_fatal)
{
    return Engine::start(options, store, std::move(on_fatal));
}

}  // namespace splitvisor::ept
