#include "controller/wire/agent.h"

#include <grpcpp/grpcpp.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "control.grpc.pb.h"
#include "controller/wire/command_queue.h"
#include "controller/wire/console_relay.h"
#include "controller/wire/protocol.h"

namespace splitvisor::wire {

namespace {

using Stream = grpc::ClientReaderWriter<proto::FromComponent, proto::ToComponent>;

constexpr std::uint64_t kConnectMs = 2000;
constexpr std::uint64_t kEnrolMs = 5000;
constexpr std::uint64_t kRetryMs = 300;
constexpr std::size_t kProcessWorkers = 8;
constexpr std::size_t kMaxUnheardExits = 1024;

std::chrono::system_clock::time_point after_ms(std::uint64_t ms)
{
    return std::chrono::system_clock::now() + std::chrono::milliseconds{ms};
}

std::uint64_t random_number()
{
    std::uint64_t number = 0;
    SPLITVISOR_CHECK(::getrandom(&number, sizeof number, 0) == sizeof number);
    return number;
}

std::shared_ptr<grpc::Channel> make_channel(const std::string& controller)
{
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    // A proxy of the environment has no business between components.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    return grpc::CreateCustomChannel(controller, grpc::InsecureChannelCredentials(), arguments);
}

proto::Kind kind_of(ComponentKind kind)
{
    switch (kind) {
    case ComponentKind::kProcessor: return proto::KIND_PROCESSOR;
    case ComponentKind::kMemory: return proto::KIND_MEMORY;
    case ComponentKind::kStorage: return proto::KIND_STORAGE;
    }
    return proto::KIND_UNKNOWN;
}

/// Turns a Status into what a command result carries.
Result<std::string> without_payload(const Status& status)
{
    if (!status) return status.error();
    return std::string{};
}

/// Threads: one runs the sessions and reads, one for each session writes, the command queue's workers execute.
class StreamAgent final : public Agent {
  public:
    explicit StreamAgent(AgentOptions options)
        : options_{std::move(options)},
          instance_{random_number()},
          channel_{make_channel(options_.controller)},
          consoles_{channel_},
          commands_{options_.process != nullptr ? kProcessWorkers : 1,
                    [this](std::uint64_t id, const Result<std::string>& result) { deliver(id, result); }},
          sessions_{"agent", [this] { run_sessions(); }}
    {
    }

    ~StreamAgent() override
    {
        {
            const std::lock_guard lock{mutex_};
            stopping_ = true;
            if (context_ != nullptr) context_->TryCancel();
        }
        changed_.notify_all();
        sessions_.join();
    }

    void report_vnode_exit(const std::string& name, Epoch epoch, int exit_status, const std::string& reason) override
    {
        const std::lock_guard lock{mutex_};
        proto::VnodeExit exit;
        exit.set_sequence(next_exit_++);
        exit.set_name(name);
        exit.set_epoch(epoch.value());
        exit.set_exit_status(exit_status);
        exit.set_reason(to_utf8(reason));
        if (exits_.size() >= kMaxUnheardExits) exits_.pop_front();
        exits_.push_back(exit);
        if (enrolled_) push_exit(exit);
    }

    /// Waits for the first answer of the controller.
    Status await_enrolment(std::uint64_t patience_ms)
    {
        std::unique_lock lock{mutex_};
        changed_.wait_for(lock, std::chrono::milliseconds{patience_ms}, [this] { return first_answer_.has_value(); });
        if (first_answer_) return *first_answer_;
        return Error{ErrorCode::kUnavailable,
                     "controller " + options_.controller + ": " +
                         (last_failure_.empty() ? std::string{"no answer"} : last_failure_)};
    }

  private:
    void run_sessions()
    {
        for (;;) {
            if (channel_->WaitForConnected(after_ms(kConnectMs))) {
                run_session();
            } else {
                note_failure("cannot be reached");
            }
            std::unique_lock lock{mutex_};
            changed_.wait_for(lock, std::chrono::milliseconds{kRetryMs}, [this] { return stopping_; });
            if (stopping_) return;
        }
    }

    void run_session()
    {
        grpc::ClientContext context;
        {
            const std::lock_guard lock{mutex_};
            if (stopping_) return;
            context_ = &context;
            session_ended_ = false;
            session_start_ms_ = now_ms();
            outbound_.clear();
            outbound_.push_back(enrolment());
        }
        const auto stub = proto::Control::NewStub(channel_);
        const std::unique_ptr<Stream> stream = stub->Attach(&context);
        {
            const Thread writer{"agent-write", [this, &stream] { write_session(*stream); }};
            proto::ToComponent message;
            while (stream->Read(&message)) {
                if (!handle(message)) break;
            }
            context.TryCancel();
            end_session();
        }
        const grpc::Status status = stream->Finish();
        const std::lock_guard lock{mutex_};
        context_ = nullptr;
        if (last_failure_.empty()) last_failure_ = status.error_message();
    }

    void end_session()
    {
        const std::lock_guard lock{mutex_};
        session_ended_ = true;
        if (enrolled_) log_warning("controller_lost", field("controller", options_.controller));
        enrolled_ = false;
        changed_.notify_all();
    }

    proto::FromComponent enrolment() const
    {
        proto::FromComponent message;
        proto::Enrol& enrol = *message.mutable_enrol();
        // Bytes that protobuf cannot send would never be answered; made text they are refused like any other.
        enrol.set_token(to_utf8(options_.token));
        enrol.set_name(to_utf8(options_.name));
        enrol.set_kind(kind_of(options_.kind));
        enrol.set_data_endpoint(to_utf8(options_.data_endpoint));
        enrol.set_incarnation(options_.incarnation);
        enrol.set_instance(instance_);
        enrol.set_protocol(kProtocolVersion);
        return message;
    }

    void write_session(Stream& stream)
    {
        std::uint64_t next_heartbeat_ms = 0;
        for (;;) {
            std::optional<proto::FromComponent> message;
            {
                std::unique_lock lock{mutex_};
                changed_.wait_for(lock, std::chrono::milliseconds{heartbeat_ms_.load()},
                                  [this] { return session_ended_ || !outbound_.empty(); });
                if (session_ended_) return;
                if (!enrolled_ && now_ms() > session_start_ms_ + kEnrolMs) {
                    last_failure_ = "no answer to the enrolment";
                    context_->TryCancel();
                    return;
                }
                if (!outbound_.empty()) {
                    message = std::move(outbound_.front());
                    outbound_.pop_front();
                }
            }
            if (message && !stream.Write(*message)) return;
            if (now_ms() >= next_heartbeat_ms) {
                push_heartbeat();
                next_heartbeat_ms = now_ms() + heartbeat_ms_;
            }
        }
    }

    /// False ends the session.
    bool handle(const proto::ToComponent& message)
    {
        switch (message.body_case()) {
        case proto::ToComponent::kEnrolled: accept(message.enrolled()); return true;
        case proto::ToComponent::kRefused: refuse(message.refused()); return false;
        case proto::ToComponent::kCommand: take_command(message.command()); return true;
        case proto::ToComponent::kExitAck: forget_exit(message.exit_ack().sequence()); return true;
        case proto::ToComponent::BODY_NOT_SET: return true;
        }
        return true;
    }

    void accept(const proto::Enrolled& enrolled)
    {
        heartbeat_ms_ = std::clamp<std::uint64_t>(enrolled.heartbeat_ms(), 50, 60'000);
        {
            const std::lock_guard lock{mutex_};
            enrolled_ = true;
            last_failure_.clear();
            for (const proto::VnodeExit& exit : exits_) push_exit(exit);
            if (!first_answer_) first_answer_ = Status{};
        }
        changed_.notify_all();
        log_info("enrolled", field("controller", options_.controller) + field("name", options_.name));
        push_heartbeat();
    }

    void refuse(const proto::Refused& refused)
    {
        log_error("enrolment_refused",
                  field("controller", options_.controller) + field("reason", std::string_view{refused.reason()}));
        const std::lock_guard lock{mutex_};
        last_failure_ = refused.reason();
        if (!first_answer_ && !refused.retry()) {
            first_answer_ = Error{ErrorCode::kDenied, "the controller refuses this component: " + refused.reason()};
        }
        changed_.notify_all();
    }

    void note_failure(const std::string& failure)
    {
        const std::lock_guard lock{mutex_};
        last_failure_ = failure;
    }

    void forget_exit(std::uint64_t sequence)
    {
        const std::lock_guard lock{mutex_};
        std::erase_if(exits_, [sequence](const proto::VnodeExit& exit) { return exit.sequence() == sequence; });
    }

    /// The figures are taken and queued in one step, so that a later heartbeat never tells older figures.
    void push_heartbeat()
    {
        const std::lock_guard usage_lock{usage_mutex_};
        const Usage usage = options_.usage ? options_.usage() : Usage{};
        proto::FromComponent message;
        proto::Heartbeat& heartbeat = *message.mutable_heartbeat();
        heartbeat.set_capacity_bytes(usage.capacity.value());
        heartbeat.set_used_bytes(usage.used.value());
        for (const std::string& image : usage.images) heartbeat.add_images(to_utf8(image));
        heartbeat.set_detail_json(to_utf8(usage.detail_json));
        const std::lock_guard lock{mutex_};
        if (!enrolled_) return;
        outbound_.push_back(std::move(message));
        changed_.notify_all();
    }

    /// With mutex_ held.
    void push_exit(const proto::VnodeExit& exit)
    {
        proto::FromComponent message;
        *message.mutable_vnode_exit() = exit;
        outbound_.push_back(std::move(message));
        changed_.notify_all();
    }

    /// The heartbeat goes first: who hears the result knows the figures after it.
    void deliver(std::uint64_t id, const Result<std::string>& result)
    {
        push_heartbeat();
        proto::FromComponent message;
        proto::CommandResult& answer = *message.mutable_result();
        answer.set_id(id);
        answer.set_ok(result.ok());
        if (result) {
            answer.set_payload(to_utf8(*result));
        } else {
            answer.set_error_code(static_cast<std::uint32_t>(result.error().code()));
            answer.set_message(to_utf8(result.error().message()));
        }
        const std::lock_guard lock{mutex_};
        // Without a session the result waits in the command queue until the controller asks for it again.
        if (!enrolled_) return;
        outbound_.push_back(std::move(message));
        changed_.notify_all();
    }

    void take_command(const proto::Command& command)
    {
        commands_.submit(command.id(), lane_of(command), command.deadline_ms(),
                         [this, command] { return execute(command); });
    }

    static std::string lane_of(const proto::Command& command)
    {
        switch (command.body_case()) {
        case proto::Command::kStartVnode: return "vnode " + command.start_vnode().name();
        case proto::Command::kStopVnode: return "vnode " + command.stop_vnode().name();
        case proto::Command::kForgetVnode: return "vnode " + command.forget_vnode().name();
        case proto::Command::kControlVnode: return "control " + command.control_vnode().name();
        case proto::Command::kOpenConsole: return "console " + command.open_console().name();
        case proto::Command::kCreateRegion:
        case proto::Command::kDeleteRegion:
        case proto::Command::kSetRegionEpoch:
        case proto::Command::kCreateVolume:
        case proto::Command::kDeleteVolume:
        case proto::Command::kSetVolumeEpoch:
        case proto::Command::BODY_NOT_SET: return {};
        }
        return {};
    }

    Result<std::string> execute(const proto::Command& command)
    {
        if (options_.memory != nullptr) {
            if (auto result = execute_memory(command)) return *result;
        }
        if (options_.storage != nullptr) {
            if (auto result = execute_storage(command)) return *result;
        }
        if (options_.process != nullptr) {
            if (auto result = execute_process(command)) return *result;
        }
        return Error{ErrorCode::kUnsupported, "this component does not know the command"};
    }

    std::optional<Result<std::string>> execute_memory(const proto::Command& command)
    {
        if (command.has_create_region()) {
            const proto::CreateRegion& create = command.create_region();
            return without_payload(options_.memory->create_region(RegionId{create.region()},
                                                                  ByteCount{create.size_bytes()},
                                                                  create.capability(), Epoch{create.epoch()}));
        }
        if (command.has_delete_region()) {
            return without_payload(options_.memory->delete_region(RegionId{command.delete_region().region()}));
        }
        if (command.has_set_region_epoch()) {
            const proto::SetRegionEpoch& set = command.set_region_epoch();
            return without_payload(options_.memory->set_region_epoch(RegionId{set.region()}, Epoch{set.epoch()}));
        }
        return std::nullopt;
    }

    std::optional<Result<std::string>> execute_storage(const proto::Command& command)
    {
        if (command.has_create_volume()) {
            const proto::CreateVolume& create = command.create_volume();
            return without_payload(options_.storage->create_volume(
                VolumeId{create.volume()}, ByteCount{create.size_bytes()}, create.image(), create.capability(),
                Epoch{create.epoch()}));
        }
        if (command.has_delete_volume()) {
            return without_payload(options_.storage->delete_volume(VolumeId{command.delete_volume().volume()}));
        }
        if (command.has_set_volume_epoch()) {
            const proto::SetVolumeEpoch& set = command.set_volume_epoch();
            return without_payload(options_.storage->set_volume_epoch(VolumeId{set.volume()}, Epoch{set.epoch()}));
        }
        return std::nullopt;
    }

    std::optional<Result<std::string>> execute_process(const proto::Command& command)
    {
        ProcessCommands& process = *options_.process;
        if (command.has_start_vnode()) {
            return without_payload(process.start_vnode(command.start_vnode().name(),
                                                       command.start_vnode().spec_json()));
        }
        if (command.has_stop_vnode()) {
            return without_payload(process.stop_vnode(command.stop_vnode().name(), command.stop_vnode().grace_ms()));
        }
        if (command.has_control_vnode()) {
            return process.control_vnode(command.control_vnode().name(), command.control_vnode().command_json());
        }
        if (command.has_forget_vnode()) return without_payload(process.forget_vnode(command.forget_vnode().name()));
        if (command.has_open_console()) return without_payload(open_console(command.open_console()));
        return std::nullopt;
    }

    Status open_console(const proto::OpenConsole& command)
    {
        auto console = options_.process->open_console(command.name());
        if (!console) return console.error();
        return consoles_.open(std::move(*console), command.session());
    }

    const AgentOptions options_;
    const std::uint64_t instance_;
    const std::shared_ptr<grpc::Channel> channel_;

    std::mutex usage_mutex_;  ///< taken before mutex_
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stopping_ = false;
    bool enrolled_ = false;
    bool session_ended_ = false;
    std::uint64_t session_start_ms_ = 0;
    grpc::ClientContext* context_ = nullptr;  ///< of the session that runs
    std::optional<Status> first_answer_;
    std::string last_failure_;
    std::deque<proto::FromComponent> outbound_;
    std::deque<proto::VnodeExit> exits_;
    std::uint64_t next_exit_ = 1;
    std::atomic<std::uint64_t> heartbeat_ms_ = 1000;

    ConsoleRelays consoles_;
    CommandQueue commands_;
    Thread sessions_;
};

}  // namespace

Result<std::unique_ptr<Agent>> start_agent(AgentOptions options, std::uint64_t patience_ms)
{
    auto agent = std::make_unique<StreamAgent>(std::move(options));
    if (auto status = agent->await_enrolment(patience_ms); !status) return status.error();
    return std::unique_ptr<Agent>{std::move(agent)};
}

}  // namespace splitvisor::wire
