#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <thread>

#include "base/clock.h"
#include "fabric/shm_rendezvous.h"
#include "tests/fakes/temporary_directory.h"
#include "tests/unit/fabric/listener_checks.h"
#include "tests/unit/fabric/socket_pair.h"

namespace splitvisor::fabric {

namespace {

constexpr int kSealed = F_SEAL_SHRINK | F_SEAL_GROW;

struct OfferBytes {
    std::uint32_t magic = 0x314d5653;
    std::uint32_t ring_bytes = kRingBytes;
};

std::array<Fd, 2> packet_pair()
{
    std::array<int, 2> ends{};
    SPLITVISOR_CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
    return {Fd{ends[0]}, Fd{ends[1]}};
}

Fd memory_of(std::size_t size, int seals)
{
    Fd memory{::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    SPLITVISOR_CHECK(::ftruncate(memory.get(), static_cast<off_t>(size)) == 0);
    if (seals != 0) SPLITVISOR_CHECK(::fcntl(memory.get(), F_ADD_SEALS, seals) == 0);
    return memory;
}

/// What the listening side makes of an offer.
std::optional<ErrorCode> outcome(std::span<const std::byte> packet, const std::vector<int>& descriptors)
{
    auto ends = packet_pair();
    iovec vector{const_cast<std::byte*>(packet.data()), packet.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(8 * sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
        auto* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
        std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size() * sizeof(int));
    }
    SPLITVISOR_CHECK(::sendmsg(ends[0].get(), &message, 0) == static_cast<ssize_t>(packet.size()));
    const auto taken = take_memory(std::move(ends[1]), "peer", 1'000);
    if (taken) return std::nullopt;
    return taken.error().code();
}

std::size_t open_descriptors()
{
    const std::filesystem::directory_iterator all{"/proc/self/fd"};
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

std::size_t files_in_dev_shm()
{
    const std::filesystem::directory_iterator all{"/dev/shm"};
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

/// Mappings of our memory in this process.
std::size_t mapped_rings()
{
    std::FILE* const maps = std::fopen("/proc/self/maps", "r");
    SPLITVISOR_CHECK(maps != nullptr);
    std::size_t count = 0;
    std::array<char, 512> line{};
    while (std::fgets(line.data(), line.size(), maps) != nullptr) {
        if (std::strstr(line.data(), "splitvisor-fabric") != nullptr) ++count;
    }
    std::fclose(maps);
    return count;
}

/// A connection and the other side's memory, in which the test lies.
struct Liar {
    std::array<Mapping, 2> memory = shared_layout();
    std::array<Fd, 2> sockets = socket_pair();
    ShmConnection connection{std::move(sockets[1]), std::move(memory[1]), ShmConnection::Side::kListening,
                             "peer", 300};
    [[nodiscard]] ShmLayout& layout() const { return *reinterpret_cast<ShmLayout*>(memory[0].data()); }
};

/// As what has been written and as what has been consumed, where both were 0.
constexpr std::array<std::uint64_t, 3> kImpossible{kRingBytes + 1, std::uint64_t{kRingBytes} * 2,
                                                   std::uint64_t{1} << 63};

}  // namespace

BOOST_AUTO_TEST_SUITE(shm)

BOOST_AUTO_TEST_CASE(takes_only_sealed_memory_of_the_right_size)
{
    const OfferBytes good;
    const auto offered = [&](std::size_t size, int seals) {
        return outcome(bytes_of(good), {memory_of(size, seals).get()});
    };
    BOOST_TEST(!offered(sizeof(ShmLayout), kSealed).has_value());
    for (const int seals : {0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL}) {
        BOOST_TEST((offered(sizeof(ShmLayout), seals) == ErrorCode::kDenied), "seals " << seals);
    }
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{4096}, sizeof(ShmLayout) - 1, sizeof(ShmLayout) + 4096}) {
        BOOST_TEST((offered(size, kSealed) == ErrorCode::kDenied), "size " << size);
    }
    // Sealed against writing it cannot be mapped for writing.
    BOOST_TEST(offered(sizeof(ShmLayout), kSealed | F_SEAL_WRITE).has_value());
}

BOOST_AUTO_TEST_CASE(refuses_what_is_no_memory)
{
    const OfferBytes good;
    const auto ends = socket_pair();
    const Fd file{::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
    const auto memory = memory_of(sizeof(ShmLayout), kSealed);
    const int fd = memory.get();
    const auto before = open_descriptors();
    BOOST_TEST((outcome(bytes_of(good), {ends[0].get()}) == ErrorCode::kDenied));
    BOOST_TEST((outcome(bytes_of(good), {file.get()}) == ErrorCode::kDenied));
    BOOST_TEST((outcome(bytes_of(good), {}) == ErrorCode::kDenied));
    BOOST_TEST((outcome(bytes_of(good), {fd, fd}) == ErrorCode::kDenied));
    BOOST_TEST((outcome(bytes_of(good), {fd, fd, fd, fd, fd}) == ErrorCode::kDenied));
    BOOST_TEST((outcome(bytes_of(good).first(7), {fd}) == ErrorCode::kDenied));
    BOOST_TEST((outcome(pattern(9), {fd}) == ErrorCode::kDenied));
    BOOST_TEST((outcome(pattern(8), {fd}) == ErrorCode::kDenied));
    const OfferBytes other_size{.ring_bytes = kRingBytes / 2};
    BOOST_TEST((outcome(bytes_of(other_size), {fd}) == ErrorCode::kDenied));
    BOOST_TEST(open_descriptors() == before);
}

// The memory a peer could have kept open cannot be cut under us either.
BOOST_AUTO_TEST_CASE(seals_the_memory_it_offers)
{
    auto ends = packet_pair();
    const auto connection = offer_memory(std::move(ends[0]), "peer", 1'000);
    BOOST_REQUIRE(connection.ok());
    OfferBytes offer;
    iovec vector{&offer, sizeof offer};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    BOOST_REQUIRE(::recvmsg(ends[1].get(), &message, MSG_CMSG_CLOEXEC) == sizeof offer);
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    const Fd memory{fd};
    BOOST_TEST(::ftruncate(memory.get(), 0) != 0);
    BOOST_TEST(::ftruncate(memory.get(), 1 << 30) != 0);
}

BOOST_AUTO_TEST_CASE(a_lying_position_ends_the_connection)
{
    // The checksums would find it too, after reading where nothing was written: the message tells which did.
    const auto is_position = [](const Error& error) {
        return error.code() == ErrorCode::kCorrupt && error.message().find("a position") != std::string::npos;
    };
    for (const auto position : kImpossible) {
        Liar reading;
        reading.layout().control[0].written.store(position);
        BOOST_TEST(is_position(reading.connection.receive(1'000).error()));
        BOOST_TEST((reading.connection.receive(0).error().code() == ErrorCode::kUnavailable));
        Liar writing;
        writing.layout().control[1].consumed.store(position);
        BOOST_TEST(is_position(writing.connection.send({.kind = 1, .head = {}, .data = {}}).error()));
    }
}

BOOST_AUTO_TEST_CASE(a_position_beyond_the_ring_in_the_middle_of_data_reads_nothing)
{
    Liar liar;
    FrameHeader header{kFrameMagic, 1, 0, 1, 0, kMaxDataBytes, 0, 0};
    header.head_crc = head_crc_of(header, {});
    RingWriter writer{liar.layout().control[0], std::span<std::byte, kRingBytes>{liar.layout().bytes[0]}};
    const iovec vector{&header, sizeof header};
    BOOST_REQUIRE(writer.write({&vector, 1}) == sizeof header);
    BOOST_REQUIRE(liar.connection.receive(1'000).ok());
    liar.layout().control[0].written.store(sizeof header + kMaxDataBytes);
    std::vector<std::byte> received(kMaxDataBytes);
    const auto into = vector_over(received);
    BOOST_TEST(liar.connection.receive_data({&into, 1}).error().message().find("a position") !=
               std::string::npos);
    BOOST_TEST((std::ranges::all_of(received, [](std::byte byte) { return byte == std::byte{}; })));
}

BOOST_AUTO_TEST_CASE(sending_to_a_peer_that_has_shut_down_says_so)
{
    auto [a, b] = connection_pair(Transport::kShm);
    b->shutdown();
    BOOST_TEST((a->send({.kind = 1, .head = {}, .data = {}}).error().code() == ErrorCode::kUnavailable));
}

// Whatever a peer writes where and when, a call returns within its time and nothing is read or written
// outside.
BOOST_AUTO_TEST_CASE(survives_a_peer_that_scribbles)
{
    Liar liar;
    std::atomic<bool> stop{false};
    std::thread scribbler{[&] {
        std::uint64_t seed = 7;
        while (!stop) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            auto& control = liar.layout().control[seed >> 63];
            // Near enough to be possible now and then.
            control.written.store((seed >> 20) % (3 * kRingBytes));
            control.consumed.store((seed >> 10) % (2 * kRingBytes));
            control.reader_waits.store(static_cast<std::uint32_t>(seed >> 40));
            control.writer_waits.store(static_cast<std::uint32_t>(seed >> 33));
        }
    }};
    auto data = pattern(kMaxDataBytes);
    const auto vector = vector_over(data);
    const auto start_ms = now_ms();
    std::thread sender{[&] {
        while (liar.connection.send({.kind = 1, .head = {}, .data = {&vector, 1}}).ok()) {
        }
    }};
    while (true) {
        const auto incoming = liar.connection.receive(1'000);
        if (!incoming || !liar.connection.skip_data().ok()) break;
    }
    sender.join();
    stop = true;
    scribbler.join();
    BOOST_TEST(now_ms() - start_ms < 10'000u);
}

// Positions that jump within what is possible give bytes nobody sent, which the checksums find.
BOOST_AUTO_TEST_CASE(bytes_changed_after_they_were_sent_are_noticed)
{
    Liar liar;
    const auto frame = frame_of(pattern(24), pattern(5'000, 2));
    RingWriter writer{liar.layout().control[0], std::span<std::byte, kRingBytes>{liar.layout().bytes[0]}};
    const iovec vector{const_cast<std::byte*>(frame.data()), frame.size()};
    BOOST_REQUIRE(writer.write({&vector, 1}) == frame.size());
    const auto incoming = liar.connection.receive(1'000);
    BOOST_REQUIRE(incoming.ok());
    const auto head = std::vector(incoming->head.begin(), incoming->head.end());
    std::memset(liar.layout().bytes[0], 0, 4'096);
    BOOST_TEST((std::vector(incoming->head.begin(), incoming->head.end()) == head), "the head is a copy");
    std::vector<std::byte> received(incoming->data_bytes);
    const auto into = vector_over(received);
    BOOST_TEST((liar.connection.receive_data({&into, 1}).error().code() == ErrorCode::kCorrupt));
}

BOOST_AUTO_TEST_CASE(notices_a_peer_killed_in_the_middle_of_a_message)
{
    const fakes::TemporaryDirectory directory;
    const auto endpoint = endpoint_of("shm:" + directory.path() + "/door");
    const auto door = listen(endpoint);
    BOOST_REQUIRE(door.ok());
    for (const bool we_send : {false, true}) {
        const pid_t child = ::fork();
        if (child == 0) {
            const auto connection = connect(endpoint, 1'000);
            auto data = pattern(kMaxDataBytes);
            const auto vector = vector_over(data);
            // The ring fills and the call sleeps, or nothing is ever taken.
            if (!we_send) (void)(*connection)->send({.kind = 1, .head = {}, .data = {&vector, 1}});
            while (true) ::pause();
        }
        const auto server = (*door)->accept();
        BOOST_REQUIRE(server.ok());
        const auto kill_child = [child] {
            ::kill(child, SIGKILL);
            ::waitpid(child, nullptr, 0);
        };
        auto data = pattern(kMaxDataBytes);
        const auto vector = vector_over(data);
        if (we_send) {
            std::thread killer{[&] {
                std::this_thread::sleep_for(std::chrono::milliseconds{50});
                kill_child();
            }};
            const auto start_ms = now_ms();
            const auto sent = (*server)->send({.kind = 1, .head = {}, .data = {&vector, 1}});
            BOOST_TEST((sent.error().code() == ErrorCode::kUnavailable));
            killer.join();
            BOOST_TEST(now_ms() - start_ms < 1'000u);
        } else {
            const bool begun = (*server)->receive(5'000).ok();
            kill_child();
            BOOST_REQUIRE(begun);
            // What the ring held is still taken; the rest never comes.
            const auto start_ms = now_ms();
            BOOST_TEST(((*server)->receive_data({&vector, 1}).error().code() == ErrorCode::kUnavailable));
            BOOST_TEST(now_ms() - start_ms < 1'000u);
        }
        BOOST_TEST(((*server)->receive(-1).error().code() == ErrorCode::kUnavailable));
    }
}

BOOST_AUTO_TEST_CASE(notices_a_dead_peer_even_without_waiting)
{
    Liar liar;
    BOOST_TEST((liar.connection.receive(0).error().code() == ErrorCode::kTimeout));
    liar.sockets[0].reset();
    BOOST_TEST((liar.connection.receive(0).error().code() == ErrorCode::kUnavailable));
}

BOOST_AUTO_TEST_CASE(the_other_sockets_of_a_path_are_refused_in_connect)
{
    const fakes::TemporaryDirectory directory;
    const auto path = directory.path() + "/door";
    for (const auto& [there, here] : {std::pair{"unix:", "shm:"}, std::pair{"shm:", "unix:"}}) {
        const auto door = listen(endpoint_of(there + path));
        BOOST_REQUIRE(door.ok());
        const auto refused = connect(endpoint_of(here + path), 1'000);
        BOOST_REQUIRE(!refused.ok());
        BOOST_TEST((refused.error().code() == ErrorCode::kInvalid));
        BOOST_TEST(refused.error().message().find(here + path) != std::string::npos);
        BOOST_TEST((listen(endpoint_of(here + path)).error().code() == ErrorCode::kExists));
    }
}

BOOST_AUTO_TEST_CASE(a_stranger_that_says_nothing_holds_up_nobody)
{
    const fakes::TemporaryDirectory directory;
    const auto path = directory.path() + "/door";
    const auto door = listen(endpoint_of("shm:" + path));
    BOOST_REQUIRE(door.ok());
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, path.c_str(), sizeof name.sun_path - 1);
    const auto stranger = [&] {
        Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
        SPLITVISOR_CHECK(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0);
        return socket;
    };
    const auto silent = stranger();
    stranger().reset();
    const auto rude = stranger();
    BOOST_REQUIRE(::send(rude.get(), "hello", 5, 0) == 5);
    const auto client = connect(endpoint_of("shm:" + path), 1'000);
    BOOST_REQUIRE(client.ok());
    const auto start_ms = now_ms();
    BOOST_TEST(((*door)->accept().error().code() == ErrorCode::kDenied), "one clear error");
    const auto server = (*door)->accept();
    BOOST_REQUIRE(server.ok());
    BOOST_TEST(now_ms() - start_ms < 500u);
    BOOST_REQUIRE((*client)->send({.kind = 9, .head = {}, .data = {}}).ok());
    BOOST_TEST((*server)->receive(1'000)->kind == 9);
}

BOOST_AUTO_TEST_CASE(leaves_no_descriptor_no_mapping_and_no_file)
{
    const fakes::TemporaryDirectory directory;
    const auto descriptors = open_descriptors();
    const auto files = files_in_dev_shm();
    {
        const auto endpoint = endpoint_of("shm:" + directory.path() + "/door");
        const auto door = listen(endpoint);
        BOOST_REQUIRE(door.ok());
        std::vector<std::unique_ptr<Connection>> clients;
        std::vector<std::unique_ptr<Connection>> servers;
        for (std::uint64_t i = 0; i < 20; ++i) {
            clients.push_back(std::move(connect(endpoint, 1'000)).value());
            servers.push_back(std::move((*door)->accept()).value());
            BOOST_REQUIRE(clients.back()->send({.kind = 1, .request_id = i, .head = {}, .data = {}}).ok());
        }
        // Several connections do not mix.
        for (std::uint64_t i = 20; i-- > 0;) BOOST_TEST(servers[i]->receive(1'000)->request_id == i);
        BOOST_TEST(open_descriptors() - descriptors == 2u + 2u * 20u,
                   "a socket an end, and the listener's two");
        BOOST_TEST(mapped_rings() == 40u);
    }
    BOOST_TEST(open_descriptors() == descriptors);
    BOOST_TEST(mapped_rings() == 0u);
    BOOST_TEST(files_in_dev_shm() == files);
}

// Both directions at once, each many times the ring.
BOOST_AUTO_TEST_CASE(streams_both_ways_with_two_threads_an_end)
{
    auto [a, b] = connection_pair(Transport::kShm);
    constexpr int kMessages = 8;
    const auto original = pattern(kMaxDataBytes);
    const auto send_all = [&](Connection& end) {
        auto data = original;
        const auto vector = vector_over(data);
        for (int i = 0; i < kMessages; ++i) {
            SPLITVISOR_CHECK(end.send({.kind = 1, .head = bytes_of(i), .data = {&vector, 1}}).ok());
        }
    };
    const auto receive_all = [&](Connection& end) {
        std::vector<std::byte> received(original.size());
        const auto into = vector_over(received);
        for (int i = 0; i < kMessages; ++i) {
            const auto incoming = end.receive(5'000);
            SPLITVISOR_CHECK(incoming.ok() && load<int>(incoming->head) == i);
            SPLITVISOR_CHECK(end.receive_data({&into, 1}).ok() && received == original);
        }
    };
    std::array<std::thread, 3> others{std::thread{[&, &end = *a] { send_all(end); }},
                                      std::thread{[&, &end = *b] { send_all(end); }},
                                      std::thread{[&, &end = *a] { receive_all(end); }}};
    receive_all(*b);
    for (auto& thread : others) thread.join();
}

// A sleeper that is not woken would look again after 100 ms: so many round trips would then take 10 s.
BOOST_AUTO_TEST_CASE(a_sleeper_is_woken)
{
    auto [a, b] = connection_pair(Transport::kShm);
    constexpr int kRounds = 50;
    std::thread echo{[&, &end = *b] {
        for (int i = 0; i < kRounds; ++i) {
            if (!end.receive(5'000)) return;
            // Longer than anybody spins.
            std::this_thread::sleep_for(std::chrono::milliseconds{2});
            if (!end.send({.kind = 1, .head = {}, .data = {}})) return;
        }
    }};
    const auto start_ms = now_ms();
    bool good = true;
    for (int i = 0; i < kRounds && good; ++i) {
        good = a->send({.kind = 1, .head = {}, .data = {}}).ok() && a->receive(5'000).ok();
    }
    echo.join();
    BOOST_TEST(good);
    BOOST_TEST(now_ms() - start_ms < 2'000u);
}

// Unwoken, the sleeper would look 70 ms later. A busy machine may delay one wake-up, hardly each of five.
BOOST_AUTO_TEST_CASE(shutdown_at_the_peer_wakes_at_once)
{
    std::uint64_t soonest_ms = ~std::uint64_t{0};
    for (int round = 0; round < 5; ++round) {
        auto [a, b] = connection_pair(Transport::kShm);
        std::uint64_t woken_ms = 0;
        std::thread sleeper{[&, &end = *a] {
            SPLITVISOR_CHECK(end.receive(-1).error().code() == ErrorCode::kUnavailable);
            woken_ms = now_ms();
        }};
        std::this_thread::sleep_for(std::chrono::milliseconds{30});
        const auto start_ms = now_ms();
        b->shutdown();
        sleeper.join();
        soonest_ms = std::min(soonest_ms, woken_ms - start_ms);
    }
    BOOST_TEST(soonest_ms < 40u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::fabric
