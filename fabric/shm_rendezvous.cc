#include "fabric/shm_rendezvous.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/bytes.h"
#include "fabric/shm_connection.h"

namespace splitvisor::fabric {

namespace {

/// The packet that carries the descriptor; "SVM1", the last digit is the version of ShmLayout.
struct Offer {
    std::uint32_t magic;
    std::uint32_t ring_bytes;
};
constexpr Offer kOffer{0x314d5653, kRingBytes};
constexpr int kNeededSeals = F_SEAL_SHRINK | F_SEAL_GROW;
/// CMSG_SPACE rounds up: a second descriptor would fit and is taken, to be closed.
constexpr std::size_t kMaxDescriptors = 2;

Result<Fd> sealed_memory()
{
    // A kernel before 6.3 does not know MFD_NOEXEC_SEAL, and nothing here depends on it.
    Fd memory{::memfd_create("splitvisor-fabric", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    if (!memory.valid()) return Error::from_errno("memfd_create");
    if (::ftruncate(memory.get(), sizeof(ShmLayout)) != 0) return Error::from_errno("ftruncate");
    if (::fcntl(memory.get(), F_ADD_SEALS, kNeededSeals | F_SEAL_SEAL) != 0) {
        return Error::from_errno("fcntl(F_ADD_SEALS)");
    }
    return memory;
}

/// Room for one descriptor.
struct ControlSpace {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> bytes{};
};

msghdr message_over(iovec& vector, ControlSpace& control)
{
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.bytes.size();
    return message;
}

Status send_offer(const Fd& socket, const Fd& memory)
{
    auto offer = kOffer;
    iovec vector{&offer, sizeof offer};
    ControlSpace control;
    auto message = message_over(vector, control);
    auto* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = memory.get();
    std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    if (::sendmsg(socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof offer) {
        return Error{ErrorCode::kUnavailable, Error::from_errno("sending the shared memory").message()};
    }
    return {};
}

/// Owns whatever came, also where it is refused.
std::array<Fd, kMaxDescriptors> descriptors_in(msghdr& message)
{
    std::array<Fd, kMaxDescriptors> found;
    std::size_t count = 0;
    for (auto* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        const auto bytes = header->cmsg_len - CMSG_LEN(0);
        for (std::size_t at = 0; at + sizeof(int) <= bytes && count < found.size(); at += sizeof(int)) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
            found[count++] = Fd{fd};
        }
    }
    return found;
}

Result<Fd> receive_offer(const Fd& socket)
{
    Offer offer{};
    iovec vector{&offer, sizeof offer};
    ControlSpace control;
    auto message = message_over(vector, control);
    const auto count = ::recvmsg(socket.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count < 0) return Error{ErrorCode::kUnavailable, Error::from_errno("receive").message()};
    auto descriptors = descriptors_in(message);
    if (count == 0) return Error{ErrorCode::kUnavailable, "the peer went away"};
    const bool whole = count == sizeof offer && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
    if (!whole || std::memcmp(&offer, &kOffer, sizeof offer) != 0) {
        return Error{ErrorCode::kDenied, "not an offer of shared memory, or one of another version"};
    }
    if (!descriptors[0].valid() || descriptors[1].valid()) {
        return Error{ErrorCode::kDenied, "an offer of shared memory without its one descriptor"};
    }
    return std::move(descriptors[0]);
}

/// With these, touching the mapping cannot raise SIGBUS: the size is right and stays, and the pages are the
/// kernel's own (a huge page could be missing at the first touch).
Status check_memory(const Fd& memory)
{
    const auto refused = [](std::string_view why) {
        return Error{ErrorCode::kDenied, "the shared memory " + std::string{why}};
    };
    const int seals = ::fcntl(memory.get(), F_GET_SEALS);
    if (seals < 0) return refused("is no memfd");
    if ((seals & kNeededSeals) != kNeededSeals) return refused("is not sealed against shrinking and growing");
    struct statfs system {};
    if (::fstatfs(memory.get(), &system) != 0 || system.f_type != TMPFS_MAGIC) {
        return refused("is not of ordinary pages");
    }
    struct stat status {};
    if (::fstat(memory.get(), &status) != 0 || status.st_size != static_cast<off_t>(sizeof(ShmLayout))) {
        return refused("has not the size agreed on");
    }
    return {};
}

Result<Mapping> map(const Fd& memory)
{
    return Mapping::shared(memory.get(), ByteCount{sizeof(ShmLayout)}, 0);
}

}  // namespace

Result<std::unique_ptr<Connection>> offer_memory(Fd socket, std::string peer, int message_limit_ms)
{
    const auto memory = sealed_memory();
    if (!memory) return memory.error().in(peer);
    auto mapping = map(*memory);
    if (!mapping) return mapping.error().in(peer);
    const auto sent = send_offer(socket, *memory);
    if (!sent) return sent.error().in(peer);
    return std::unique_ptr<Connection>{std::make_unique<ShmConnection>(std::move(socket), std::move(*mapping),
                                                                       ShmConnection::Side::kConnecting,
                                                                       std::move(peer), message_limit_ms)};
}

Result<std::unique_ptr<Connection>> take_memory(Fd socket, std::string peer, int message_limit_ms)
{
    const auto memory = receive_offer(socket);
    if (!memory) return memory.error().in(peer);
    const auto checked = check_memory(*memory);
    if (!checked) return checked.error().in(peer);
    auto mapping = map(*memory);
    if (!mapping) return mapping.error().in(peer);
    return std::unique_ptr<Connection>{std::make_unique<ShmConnection>(std::move(socket), std::move(*mapping),
                                                                       ShmConnection::Side::kListening,
                                                                       std::move(peer), message_limit_ms)};
}

}  // namespace splitvisor::fabric
