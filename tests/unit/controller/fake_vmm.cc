// fake-vmm --config FILE: stands in for vnode-vmm. Answers on the control socket, echoes on the console
// socket, runs nothing. The kernel command line in the configuration says how it misbehaves.

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/text.h"
#include "controller/json/json.h"

namespace splitvisor::controller {
namespace {

Fd listen_on(const std::string& path)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) ::_exit(99);
    if (::listen(socket.get(), 16) != 0) ::_exit(99);
    return socket;
}

class FakeVmm {
  public:
    explicit FakeVmm(const Json& config)
        : run_dir_{config.text("run_dir")}, behaviour_{config.text("cmdline")}
    {
        state_ = behaviour_ == "never-starts" ? "starting" : "running";
    }

    void run()
    {
        if (behaviour_ == "refuses") {
            std::fputs("fake-vmm: something before\nfake-vmm: there is no /dev/kvm\n", stderr);
            ::_exit(1);
        }
        if (behaviour_ == "crashes") ::raise(SIGKILL);
        const Fd control = listen_on(run_dir_ + "/control.sock");
        const Fd console = listen_on(run_dir_ + "/console.sock");
        std::vector<Fd> peers;
        // Without its folder the test is over, however it ended.
        while (::access(run_dir_.c_str(), F_OK) == 0) {
            std::array<pollfd, 2> polls{{{control.get(), POLLIN, 0}, {console.get(), POLLIN, 0}}};
            if (::poll(polls.data(), polls.size(), 200) <= 0) continue;
            if (polls[0].revents != 0)
                serve(Fd{::accept4(control.get(), nullptr, nullptr, SOCK_CLOEXEC)}, peers);
            if (polls[1].revents != 0) echo(Fd{::accept4(console.get(), nullptr, nullptr, SOCK_CLOEXEC)});
        }
    }

  private:
    static std::string read_line(const Fd& peer)
    {
        std::string line;
        char c = 0;
        while (::read(peer.get(), &c, 1) == 1 && c != '\n') line += c;
        return line;
    }

    static void write_text(const Fd& peer, const std::string& text)
    {
        if (::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) std::perror("fake-vmm");
    }

    void serve(Fd peer, std::vector<Fd>& peers)
    {
        const auto command = Json::parse(read_line(peer));
        const std::string name = command ? command->text("command") : std::string{};
        if (behaviour_ == "mute") {
            peers.push_back(std::move(peer));
            return;
        }
        if (name == "crash") end(10, "triple fault");
        write_text(peer, Json::object().set("ok", true).set("state", state_).dump() + "\n");
        if ((name == "shutdown" && behaviour_ != "ignores-shutdown" && behaviour_ != "deaf") ||
            (name == "kill" && behaviour_ != "deaf")) {
            end(0, "");
        }
    }

    static void echo(Fd peer) { write_text(peer, read_line(peer) + "\n"); }

    [[noreturn]] void end(int status, const std::string& reason)
    {
        std::ofstream{run_dir_ + "/exit.json"}
            << Json::object().set("status", status).set("reason", reason).dump();
        ::_exit(status);
    }

    const std::string run_dir_;
    const std::string behaviour_;
    std::string state_;
};

}  // namespace
}  // namespace splitvisor::controller

int main(int argc, char** argv)
{
    using namespace splitvisor;
    if (argc != 3 || std::string{argv[1]} != "--config") return 98;
    const auto text = read_file(argv[2], ByteCount{kMiB});
    const auto config = text ? controller::Json::parse(*text) : Result<controller::Json>{text.error()};
    if (!config) return 97;
    controller::FakeVmm{*config}.run();
    return 0;
}
