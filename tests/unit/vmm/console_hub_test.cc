#include "vmm/console_hub.h"

#include <sys/stat.h>

#include <boost/test/unit_test.hpp>
#include <list>

#include "fixtures.h"

namespace splitvisor::vmm::test {
namespace {

/// A guest's receiver with a bounded room.
class Receiver {
  public:
    explicit Receiver(std::size_t room) : room_{room} {}
    std::size_t take(std::span<const std::byte> bytes)
    {
        const std::lock_guard lock{mutex_};
        const auto count = std::min(bytes.size(), room_);
        room_ -= count;
        text_.append(reinterpret_cast<const char*>(bytes.data()), count);
        return count;
    }
    void make_room(std::size_t bytes)
    {
        const std::lock_guard lock{mutex_};
        room_ += bytes;
    }
    std::string text()
    {
        const std::lock_guard lock{mutex_};
        return text_;
    }

  private:
    std::mutex mutex_;
    std::size_t room_;
    std::string text_;
};

struct HubFixture {
    explicit HubFixture(std::uint64_t log_limit = 64 * kMiB)
        : hub{take(
              ConsoleHub::start({folder / "console.sock", folder / "console.log", ByteCount{log_limit}}))}
    {
    }
    void print(std::string_view text) { hub->write(std::as_bytes(std::span{text})); }
    void print_and_wait(std::string_view text)
    {
        print(text);
        hub->flush(30'000);
    }
    void attach(Receiver& receiver)
    {
        hub->set_receiver([&receiver](std::span<const std::byte> bytes) { return receiver.take(bytes); });
    }

    TemporaryFolder folder;
    std::unique_ptr<ConsoleHub> hub;
};

std::string numbered_lines(std::size_t bytes)
{
    std::string text;
    for (std::size_t i = 0; text.size() < bytes; ++i) text += "line " + std::to_string(i) + "\n";
    return text;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(console_hub, HubFixture)

BOOST_AUTO_TEST_CASE(output_reaches_the_log_and_every_reader)
{
    std::list<SocketClient> readers;
    for (int i = 0; i < 5; ++i) readers.emplace_back(folder / "console.sock");
    std::string expected;
    for (int i = 0; i < 200; ++i) {
        const auto text = "line " + std::to_string(i) + "\n";
        expected += text;
        print(text);
    }
    for (auto& reader : readers) BOOST_TEST(reader.until("line 199\n") == expected);
    hub->flush(30'000);
    BOOST_TEST(folder.read("console.log") == expected);
    BOOST_TEST(hub->lost_bytes() == 0u);
}

BOOST_AUTO_TEST_CASE(a_new_reader_gets_the_last_64_kib_first_also_when_it_comes_again)
{
    const auto text = numbered_lines(200 * kKiB);
    for (std::size_t at = 0; at < text.size(); at += 4096)
        print_and_wait(std::string_view{text}.substr(at, 4096));
    for (int visit = 0; visit < 3; ++visit) {
        SocketClient reader{folder / "console.sock"};
        BOOST_TEST((reader.bytes(64 * kKiB) == text.substr(text.size() - 64 * kKiB)));
    }
    SocketClient reader{folder / "console.sock"};
    (void)reader.bytes(64 * kKiB);
    print("more");
    BOOST_TEST(reader.until("more") == "more");
}

BOOST_AUTO_TEST_CASE(a_reader_that_does_not_read_is_dropped_and_holds_up_nobody)
{
    SocketClient lazy{folder / "console.sock"};
    SocketClient eager{folder / "console.sock"};
    print_and_wait("hello\n");
    BOOST_TEST(eager.line() == "hello");
    std::string chunk(16 * kKiB, '.');
    chunk.back() = '\n';
    for (int i = 0; i < 256; ++i) {
        print_and_wait(chunk);
        BOOST_REQUIRE(eager.line().size() == chunk.size() - 1);
    }
    BOOST_TEST(hub->lost_bytes() == 0u);
    BOOST_TEST(lazy.ended());
}

BOOST_AUTO_TEST_CASE(what_is_written_faster_than_it_can_go_is_lost_and_counted_and_nobody_waits)
{
    const std::string chunk(256 * kKiB, 'f');
    std::uint64_t written = 0;
    for (int i = 0; i < 200; ++i) {
        print(chunk);
        written += chunk.size();
    }
    hub->flush(30'000);
    BOOST_TEST(folder.read("console.log").size() + hub->lost_bytes() == written);
    const std::string huge(3 * kMiB, 'g');
    const auto lost = hub->lost_bytes();
    print_and_wait(huge);
    BOOST_TEST(hub->lost_bytes() - lost == 2 * kMiB);
}

BOOST_AUTO_TEST_CASE(input_waits_for_the_guest_to_have_room)
{
    Receiver receiver{4};
    SocketClient client{folder / "console.sock"};
    BOOST_REQUIRE(client.send("before there is a guest "));
    attach(receiver);
    BOOST_REQUIRE(eventually([&] { return receiver.text() == "befo"; }));
    BOOST_REQUIRE(client.send("and after"));
    for (std::size_t got = 4; got < 33; ++got) {
        receiver.make_room(1);
        hub->receiver_has_room();
        BOOST_REQUIRE(eventually([&] { return receiver.text().size() == got + 1; }));
    }
    BOOST_TEST(receiver.text() == "before there is a guest and after");
}

BOOST_AUTO_TEST_CASE(more_input_than_it_holds_is_left_with_the_sender)
{
    SocketClient client{folder / "console.sock"};
    const auto text = numbered_lines(300 * kKiB);
    std::thread sender{[&] { client.send(text); }};
    Receiver receiver{text.size()};
    attach(receiver);
    BOOST_TEST(eventually([&] { return receiver.text().size() == text.size(); }));
    sender.join();
    BOOST_TEST((receiver.text() == text));
}

BOOST_AUTO_TEST_CASE(an_earlier_receiver_is_never_called_again)
{
    SocketClient client{folder / "console.sock"};
    std::atomic<int> calls{0};
    std::atomic<int> late{0};
    for (int i = 0; i < 50; ++i) {
        auto alive = std::make_shared<std::atomic<bool>>(true);
        hub->set_receiver([alive, &calls, &late](std::span<const std::byte> bytes) {
            if (!*alive) ++late;
            ++calls;
            return bytes.size();
        });
        BOOST_REQUIRE(client.send("x"));
        BOOST_REQUIRE(eventually([&] { return calls > i; }));
        hub->set_receiver({});
        *alive = false;
        hub->receiver_has_room();
    }
    BOOST_TEST(late == 0);
}

BOOST_AUTO_TEST_CASE(readers_beyond_the_sixteenth_are_turned_away)
{
    std::list<SocketClient> readers;
    for (int i = 0; i < 16; ++i) readers.emplace_back(folder / "console.sock");
    print("hello\n");
    for (auto& reader : readers) BOOST_TEST(reader.line() == "hello");
    BOOST_TEST(SocketClient{folder / "console.sock"}.ended());
    readers.pop_front();
    BOOST_TEST(eventually([&] { return SocketClient{folder / "console.sock"}.line() == "hello"; }));
}

BOOST_AUTO_TEST_CASE(readers_that_come_and_go_leave_nothing_behind)
{
    print_and_wait("hello\n");
    for (int i = 0; i < 200; ++i) {
        SocketClient reader{folder / "console.sock"};
        BOOST_REQUIRE(reader.connected());
        if (i % 2 == 0) BOOST_REQUIRE(reader.send("input nobody takes"));
    }
    BOOST_TEST(eventually([&] { return SocketClient{folder / "console.sock"}.line() == "hello"; }));
}

BOOST_AUTO_TEST_CASE(the_socket_goes_with_the_hub_and_belongs_to_its_user_alone)
{
    struct stat info {};
    BOOST_REQUIRE(::stat((folder / "console.sock").c_str(), &info) == 0);
    BOOST_TEST((info.st_mode & 0777) == 0600u);
    SocketClient reader{folder / "console.sock"};
    print_and_wait("last words");
    hub.reset();
    BOOST_TEST(!folder.has("console.sock"));
    BOOST_TEST(reader.until("words") == "last words");
    BOOST_TEST(reader.ended());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(console_log)

BOOST_AUTO_TEST_CASE(is_renamed_at_its_limit_so_that_a_guest_cannot_fill_the_disk)
{
    HubFixture fixture{10'000};
    const auto text = numbered_lines(100'000);
    for (std::size_t at = 0; at < text.size(); at += 1000) {
        fixture.print_and_wait(std::string_view{text}.substr(at, 1000));
        BOOST_REQUIRE(fixture.folder.read("console.log").size() <= 10'000u);
    }
    const auto both = fixture.folder.read("console.log.1") + fixture.folder.read("console.log");
    BOOST_TEST(both.size() > 10'000u);
    BOOST_TEST(text.ends_with(both));
}

BOOST_AUTO_TEST_CASE(goes_on_where_an_earlier_vmm_ended)
{
    HubFixture fixture;
    fixture.print_and_wait("one ");
    fixture.hub.reset();
    fixture.hub = take(ConsoleHub::start({fixture.folder / "console.sock", fixture.folder / "console.log"}));
    fixture.print_and_wait("two");
    BOOST_TEST(fixture.folder.read("console.log") == "one two");
}

BOOST_AUTO_TEST_CASE(that_cannot_be_opened_is_an_error_and_leaves_no_socket)
{
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder / "log");
    const auto hub = ConsoleHub::start({folder / "socket", folder / "log"});
    BOOST_REQUIRE(!hub.ok());
    BOOST_TEST(contains(hub.error().message(), folder / "log"));
    BOOST_TEST(!folder.has("socket"));
    BOOST_TEST(!ConsoleHub::start({std::string(200, 's'), folder / "other"}).ok());
    BOOST_TEST(!ConsoleHub::start({folder / "absent/socket", folder / "other"}).ok());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace splitvisor::vmm::test
