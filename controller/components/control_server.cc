#include "controller/components/control_server.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include "base/log.h"
#include "control.grpc.pb.h"
#include "controller/components/wire_command.h"

namespace splitvisor::controller {

namespace {

using namespace wire::proto;

constexpr std::size_t kMaxOutgoing = 8192;
constexpr std::size_t kMaxListItems = 4096;

/// The server's end of a gRPC stream: queues writes and finishes once. It deletes itself when gRPC is done with it;
/// others hold the Handle. Outgoing messages are kept back until open_writes().
template <typename In, typename Out>
class StreamReactor : public grpc::ServerBidiReactor<In, Out> {
  public:
    /// What outlives the stream.
    class Handle {
      public:
        explicit Handle(StreamReactor* reactor) : reactor_{reactor} {}
        template <typename Body>
        void use(Body body)
        {
            const std::lock_guard lock{mutex_};
            if (reactor_ != nullptr) body(*reactor_);
        }
        void forget()
        {
            const std::lock_guard lock{mutex_};
            reactor_ = nullptr;
        }

      private:
        std::mutex mutex_;
        StreamReactor* reactor_;
    };

    explicit StreamReactor(grpc::CallbackServerContext* context)
        : handle_{std::make_shared<Handle>(this)}, context_{context}
    {
    }

    [[nodiscard]] const std::shared_ptr<Handle>& handle() const { return handle_; }
    void cancel() { context_->TryCancel(); }

    void send(Out message)
    {
        const std::lock_guard lock{mutex_};
        if (finished_ || finish_status_) return;
        if (outgoing_.size() >= kMaxOutgoing) {
            context_->TryCancel();
            return;
        }
        outgoing_.push_back(std::move(message));
        pump();
    }

    /// Lets the writes begin, `first` before all others.
    void open_writes(Out first)
    {
        const std::lock_guard lock{mutex_};
        outgoing_.push_front(std::move(first));
        may_write_ = true;
        pump();
    }

    /// Finishes when what is queued is written.
    void finish(grpc::Status status)
    {
        const std::lock_guard lock{mutex_};
        if (finish_status_) return;
        finish_status_ = std::move(status);
        pump();
    }

    void OnWriteDone(bool ok) override
    {
        std::function<void()> written;
        {
            const std::lock_guard lock{mutex_};
            writing_ = false;
            outgoing_.pop_front();
            if (!ok) {
                outgoing_.clear();
                if (!finish_status_) finish_status_ = grpc::Status::CANCELLED;
            }
            written = std::exchange(on_written_, nullptr);
            pump();
        }
        if (ok && written) written();
    }

    void OnCancel() override { finish(grpc::Status::CANCELLED); }

    void OnDone() override
    {
        handle_->forget();
        ended();
        delete this;
    }

  protected:
    ~StreamReactor() override = default;
    virtual void ended() {}

    /// Asks for the next message, unless the stream is over.
    void read_into(In& message)
    {
        const std::lock_guard lock{mutex_};
        if (!finished_) this->StartRead(&message);
    }

    /// Called once, when the message queued last is written.
    void when_written(std::function<void()> written)
    {
        const std::lock_guard lock{mutex_};
        on_written_ = std::move(written);
    }

  private:
    /// With mutex_ held. gRPC calls back from its own threads, never from within StartWrite or Finish.
    void pump()
    {
        if (writing_ || finished_) return;
        if (!outgoing_.empty() && may_write_) {
            writing_ = true;
            this->StartWrite(&outgoing_.front());
        } else if (finish_status_) {
            finished_ = true;
            this->Finish(*finish_status_);
        }
    }

    const std::shared_ptr<Handle> handle_;
    grpc::CallbackServerContext* const context_;
    std::mutex mutex_;
    std::deque<Out> outgoing_;
    std::function<void()> on_written_;
    std::optional<grpc::Status> finish_status_;
    bool may_write_ = false;
    bool writing_ = false;
    bool finished_ = false;
};

using AttachStream = StreamReactor<FromComponent, ToComponent>;

class StreamLink final : public ComponentLink {
  public:
    explicit StreamLink(std::shared_ptr<AttachStream::Handle> stream) : stream_{std::move(stream)} {}

    void send(std::uint64_t id, const controller::Command& command, std::uint64_t deadline_ms) override
    {
        ToComponent message;
        fill_command(command, *message.mutable_command());
        message.mutable_command()->set_id(id);
        message.mutable_command()->set_deadline_ms(deadline_ms);
        stream_->use([&message](AttachStream& stream) { stream.send(std::move(message)); });
    }

    void acknowledge_exit(std::uint64_t sequence) override
    {
        ToComponent message;
        message.mutable_exit_ack()->set_sequence(sequence);
        stream_->use([&message](AttachStream& stream) { stream.send(std::move(message)); });
    }

    void close(const std::string&) override
    {
        stream_->use([](AttachStream& stream) { stream.cancel(); });
    }

  private:
    const std::shared_ptr<AttachStream::Handle> stream_;
};

std::optional<ComponentKind> kind_of(Kind kind)
{
    // Enumerations of protobuf are open: a peer may send any number.
    if (kind == KIND_PROCESSOR) return ComponentKind::kProcessor;
    if (kind == KIND_MEMORY) return ComponentKind::kMemory;
    if (kind == KIND_STORAGE) return ComponentKind::kStorage;
    return std::nullopt;
}

/// One component's stream. gRPC calls the On... functions one at a time.
class AttachReactor final : public AttachStream {
  public:
    AttachReactor(grpc::CallbackServerContext* context, ComponentRegistry& registry)
        : AttachStream{context}, registry_{registry}, link_{std::make_shared<StreamLink>(handle())}
    {
        read_into(incoming_);
    }

    void OnReadDone(bool ok) override
    {
        if (!ok || !handle_message()) {
            finish(grpc::Status::OK);
            return;
        }
        read_into(incoming_);
    }

  private:
    void ended() override
    {
        if (!name_.empty()) registry_.detached(link_.get(), name_);
    }

    bool handle_message()
    {
        if (name_.empty()) return incoming_.has_enrol() && enrol(incoming_.enrol());
        switch (incoming_.body_case()) {
        case FromComponent::kHeartbeat: heartbeat(incoming_.heartbeat()); return true;
        case FromComponent::kResult: result(incoming_.result()); return true;
        case FromComponent::kVnodeExit: vnode_exit(incoming_.vnode_exit()); return true;
        case FromComponent::kEnrol: return false;
        case FromComponent::BODY_NOT_SET: return true;
        }
        return true;
    }

    bool enrol(const Enrol& enrol)
    {
        const auto kind = kind_of(enrol.kind());
        std::optional<EnrolRefusal> refusal = EnrolRefusal{"unknown kind of component", false};
        if (kind) {
            refusal = registry_.enrol({enrol.token(), enrol.name(), *kind, enrol.data_endpoint(),
                                       enrol.incarnation(), enrol.instance(), enrol.protocol()},
                                      link_);
        }
        ToComponent answer;
        if (refusal) {
            log_warning("component_refused", field("name", std::string_view{enrol.name()}) +
                                                 field("reason", std::string_view{refusal->reason}));
            answer.mutable_refused()->set_reason(refusal->reason);
            answer.mutable_refused()->set_retry(refusal->retry);
        } else {
            name_ = enrol.name();
            answer.mutable_enrolled()->set_heartbeat_ms(
                static_cast<std::uint32_t>(registry_.heartbeat_interval_ms()));
        }
        open_writes(std::move(answer));
        return !refusal;
    }

    void heartbeat(const Heartbeat& heartbeat)
    {
        wire::Usage usage;
        usage.capacity = ByteCount{heartbeat.capacity_bytes()};
        usage.used = ByteCount{heartbeat.used_bytes()};
        for (const std::string& image : heartbeat.images()) {
            if (usage.images.size() >= kMaxListItems) break;
            usage.images.push_back(image);
        }
        usage.detail_json = heartbeat.detail_json();
        registry_.heartbeat(link_.get(), name_, usage);
    }

    void result(const CommandResult& result)
    {
        if (result.ok()) {
            registry_.result(name_, result.id(), result.payload());
        } else {
            registry_.result(name_, result.id(), Error{error_code_of(result.error_code()), result.message()});
        }
    }

    void vnode_exit(const wire::proto::VnodeExit& exit)
    {
        registry_.vnode_exit(link_, exit.sequence(),
                             {name_, exit.name(), Epoch{exit.epoch()}, exit.exit_status(), exit.reason()});
    }

    ComponentRegistry& registry_;
    const std::shared_ptr<StreamLink> link_;
    FromComponent incoming_;
    std::string name_;  ///< set once the component is enrolled
};

using ConsoleStream = StreamReactor<ConsoleBytes, ConsoleBytes>;

/// One attached console's stream.
class ConsoleReactor final : public ConsoleStream {
  public:
    ConsoleReactor(grpc::CallbackServerContext* context, ConsoleBroker& broker)
        : ConsoleStream{context}, broker_{broker}
    {
        read_into(incoming_);
    }

    void OnReadDone(bool ok) override
    {
        if (!ok) {
            if (pipe_) pipe_->close("the console has ended");
            finish(grpc::Status::OK);
        } else if (!pipe_) {
            begin();
        } else {
            pass_on();
        }
    }

    void deliver(std::string bytes, std::function<void()> taken)
    {
        ConsoleBytes message;
        message.set_data(std::move(bytes));
        when_written(std::move(taken));
        send(std::move(message));
    }

  private:
    class End final : public ByteEnd {
      public:
        explicit End(std::shared_ptr<Handle> stream) : stream_{std::move(stream)} {}
        void deliver(std::string bytes, std::function<void()> taken) override
        {
            stream_->use([&](ConsoleStream& stream) {
                static_cast<ConsoleReactor&>(stream).deliver(std::move(bytes), std::move(taken));
            });
        }
        void close(const std::string&) override
        {
            stream_->use([](ConsoleStream& stream) { stream.finish(grpc::Status::OK); });
        }

      private:
        const std::shared_ptr<Handle> stream_;
    };

    void begin()
    {
        pipe_ = broker_.arrived(incoming_.session());
        if (!pipe_) {
            finish({grpc::StatusCode::PERMISSION_DENIED, "nobody waits for this console"});
            return;
        }
        open_writes({});
        pipe_->attach(BytePipe::Side::kConsole, std::make_shared<End>(handle()));
        read_into(incoming_);
    }

    void pass_on()
    {
        auto read_on = [stream = handle()] {
            stream->use([](ConsoleStream& next) {
                auto& reactor = static_cast<ConsoleReactor&>(next);
                reactor.read_into(reactor.incoming_);
            });
        };
        pipe_->pass(BytePipe::Side::kConsole, std::move(*incoming_.mutable_data()), std::move(read_on));
    }


    void ended() override
    {
        if (pipe_) pipe_->close("the pComponent has ended the console");
    }

    ConsoleBroker& broker_;
    ConsoleBytes incoming_;
    std::shared_ptr<BytePipe> pipe_;
};

class GrpcControlServer final : public ControlServer, private Control::CallbackService {
  public:
    GrpcControlServer(ComponentRegistry& registry, ConsoleBroker& consoles) : registry_{registry}, consoles_{consoles}
    {
    }
    ~GrpcControlServer() override
    {
        if (server_) server_->Shutdown(std::chrono::system_clock::now());
    }

    Status start(const std::string& address)
    {
        grpc::ServerBuilder builder;
        int port = 0;
        builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
        builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
        builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
        builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
        builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
        builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
        builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
        builder.RegisterService(this);
        server_ = builder.BuildAndStart();
        if (!server_ || port == 0) return Error{ErrorCode::kIo, "cannot listen on " + address};
        port_ = static_cast<std::uint16_t>(port);
        return {};
    }

    [[nodiscard]] std::uint16_t port() const override { return port_; }

  private:
    grpc::ServerBidiReactor<FromComponent, ToComponent>* Attach(grpc::CallbackServerContext* context) override
    {
        return new AttachReactor{context, registry_};
    }
    grpc::ServerBidiReactor<ConsoleBytes, ConsoleBytes>* Console(grpc::CallbackServerContext* context) override
    {
        return new ConsoleReactor{context, consoles_};
    }

    ComponentRegistry& registry_;
    ConsoleBroker& consoles_;
    std::unique_ptr<grpc::Server> server_;
    std::uint16_t port_ = 0;
};

}  // namespace

Result<std::unique_ptr<ControlServer>> start_control_server(const std::string& address, ComponentRegistry& registry,
                                                            ConsoleBroker& consoles)
{
    auto server = std::make_unique<GrpcControlServer>(registry, consoles);
    SPLITVISOR_TRY(server->start(address));
    return std::unique_ptr<ControlServer>{std::move(server)};
}

}  // namespace splitvisor::controller
