#include "controller/wire/console_relay.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/thread.h"
#include "control.grpc.pb.h"

namespace splitvisor::wire {

/// One attached console: two threads, one for each direction.
class ConsoleRelays::Relay {
  public:
    Relay(const std::shared_ptr<grpc::Channel>& channel, Fd console, std::string session)
        : console_{std::move(console)},
          session_{std::move(session)},
          stub_{proto::Control::NewStub(channel)},
          stream_{stub_->Console(&context_)},
          upward_{"console-up", [this] { carry_up(); }},
          downward_{"console-down", [this] { carry_down(); }}
    {
    }

    ~Relay()
    {
        context_.TryCancel();
        ::shutdown(console_.get(), SHUT_RDWR);
        upward_.join();
        downward_.join();
        stream_->Finish();
    }

    [[nodiscard]] bool ended() const { return directions_ended_ == 2; }

  private:
    /// What the guest prints. Ends with the VMM, or when nobody listens any more.
    void carry_up()
    {
        proto::ConsoleBytes message;
        message.set_session(session_);
        bool open = stream_->Write(message);
        message.clear_session();
        std::array<char, 16384> buffer{};
        while (open) {
            const ssize_t size = ::recv(console_.get(), buffer.data(), buffer.size(), 0);
            if (size < 0 && errno == EINTR) continue;
            if (size <= 0) break;
            message.set_data(buffer.data(), static_cast<std::size_t>(size));
            open = stream_->Write(message);
        }
        stream_->WritesDone();
        ++directions_ended_;
    }

    /// What the user types.
    void carry_down()
    {
        proto::ConsoleBytes message;
        while (stream_->Read(&message)) {
            if (!send_to_console(message.data())) break;
        }
        ::shutdown(console_.get(), SHUT_RDWR);
        ++directions_ended_;
    }

    bool send_to_console(std::string_view bytes)
    {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(console_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            if (sent <= 0) return false;
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
        return true;
    }

    Fd console_;
    const std::string session_;
    grpc::ClientContext context_;
    std::unique_ptr<proto::Control::Stub> stub_;
    std::unique_ptr<grpc::ClientReaderWriter<proto::ConsoleBytes, proto::ConsoleBytes>> stream_;
    std::atomic<int> directions_ended_ = 0;
    Thread upward_;
    Thread downward_;
};

ConsoleRelays::ConsoleRelays(std::shared_ptr<grpc::Channel> channel) : channel_{std::move(channel)} {}

ConsoleRelays::~ConsoleRelays() = default;

Status ConsoleRelays::open(Fd console, const std::string& session)
{
    const std::lock_guard lock{mutex_};
    remove_ended();
    if (relays_.size() >= kMaxRelays) return Error{ErrorCode::kNoRoom, "too many consoles are attached"};
    relays_.push_back(std::make_unique<Relay>(channel_, std::move(console), session));
    return {};
}

void ConsoleRelays::remove_ended()
{
    relays_.remove_if([](const std::unique_ptr<Relay>& relay) { return relay->ended(); });
}

}  // namespace splitvisor::wire
