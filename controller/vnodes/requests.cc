#include "controller/vnodes/requests.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <set>
#include <utility>

#include "base/text.h"

namespace splitvisor::controller {

namespace {

/// Collects all that is wrong with one body.
class Checker {
  public:
    explicit Checker(const Json& body, std::string_view what = "the body") : body_{body}, what_{what} {}

    void fail(std::string reason) { reasons_.push_back(std::move(reason)); }

    void only(std::initializer_list<std::string_view> known)
    {
        if (body_.if_object() == nullptr) {
            fail(std::string{what_} + " must be a JSON object");
            return;
        }
        for (const auto& [key, value] : *body_.if_object()) {
            if (std::find(known.begin(), known.end(), key) == known.end()) fail("unknown member '" + key + "'");
        }
    }

    std::string text(std::string_view key, std::string_view fallback)
    {
        const Json* member = body_.find(key);
        if (member == nullptr) return std::string{fallback};
        if (member->if_string() == nullptr) {
            fail(std::string{key} + " must be a string");
            return std::string{fallback};
        }
        return *member->if_string();
    }

    bool flag(std::string_view key)
    {
        const Json* member = body_.find(key);
        if (member == nullptr) return false;
        if (member->if_bool() == nullptr) fail(std::string{key} + " must be true or false");
        return body_.flag(key);
    }

    std::uint64_t number(std::string_view key, std::uint64_t fallback, std::uint64_t least, std::uint64_t most)
    {
        const Json* member = body_.find(key);
        if (member == nullptr) return fallback;
        const auto value = member->if_unsigned();
        if (value && *value >= least && *value <= most) return *value;
        fail(std::string{key} + " must be a whole number from " + std::to_string(least) + " to " +
             std::to_string(most));
        return fallback;
    }

    /// A number of bytes, or text such as "512M".
    std::optional<ByteCount> size(std::string_view key)
    {
        const Json* member = body_.find(key);
        if (member == nullptr) {
            fail(std::string{key} + " is missing");
            return std::nullopt;
        }
        return size_of(key, *member);
    }

    std::optional<ByteCount> size_of(std::string_view key, const Json& member)
    {
        if (const auto bytes = member.if_unsigned()) return ByteCount{*bytes};
        if (const std::string* text = member.if_string()) {
            if (auto parsed = parse_size(*text)) return *parsed;
        }
        fail(std::string{key} + " must be a number of bytes or a size such as \"512M\"");
        return std::nullopt;
    }

    const Json::Array& list(std::string_view key, std::size_t most)
    {
        static const Json::Array kNone;
        const Json* member = body_.find(key);
        if (member == nullptr) return kNone;
        if (member->if_array() == nullptr || member->if_array()->size() > most) {
            fail(std::string{key} + " must be a list of at most " + std::to_string(most));
            return kNone;
        }
        return *member->if_array();
    }

    [[nodiscard]] const Json& body() const { return body_; }
    [[nodiscard]] bool ok() const { return reasons_.empty(); }
    [[nodiscard]] Problem problem() const
    {
        return {Problem::Kind::kBadRequest, reasons_.front(), reasons_.size() > 1 ? reasons_ : std::vector<std::string>{}};
    }

  private:
    const Json& body_;
    const std::string_view what_;
    std::vector<std::string> reasons_;
};

void check_name(Checker& checker, const std::string& name)
{
    if (!is_valid_name(name)) {
        checker.fail("name must be 1 to 63 of a-z, 0-9 and '-', begin with a letter and not end with '-'");
    }
}

/// A plain file name, resolved by the pComponent in its folder of kernels only.
bool is_plain_file_name(std::string_view file)
{
    return !file.empty() && file.size() <= 255 && file.front() != '.' &&
           std::all_of(file.begin(), file.end(), [](char c) { return c > ' ' && c <= '~' && c != '/'; });
}

ByteCount check_memory(Checker& checker)
{
    const auto memory = checker.size("memory");
    if (!memory) return ByteCount{};
    if (memory->value() % kMiB != 0) checker.fail("memory must be a multiple of 1 MiB");
    if (memory->value() < kMinMemoryBytes || memory->value() > kMaxMemoryBytes) {
        checker.fail("memory must be from " + format_size(ByteCount{kMinMemoryBytes}) + " to " +
                     format_size(ByteCount{kMaxMemoryBytes}));
        return ByteCount{};
    }
    return *memory;
}

std::optional<ByteCount> percentage_of(Checker& checker, const std::string& text, ByteCount memory)
{
    const auto percent = parse_number(std::string_view{text}.substr(0, text.size() - 1));
    if (!percent || *percent < 1 || *percent > 100) {
        checker.fail("excache must be from 1% to 100%");
        return std::nullopt;
    }
    return ByteCount{memory.value() / 100 * *percent + memory.value() % 100 * *percent / 100};
}

/// Whole lines, at most all of memory, at least what the ExCache can work with.
ByteCount check_excache(Checker& checker, ByteCount memory)
{
    const Json* member = checker.body().find("excache");
    const std::string* text = member != nullptr ? member->if_string() : nullptr;
    std::optional<ByteCount> excache;
    if (member == nullptr) {
        excache = ByteCount{std::max(memory.value() / 4, kMinExcacheBytes)};
    } else if (text != nullptr && text->ends_with('%')) {
        excache = percentage_of(checker, *text, memory);
    } else {
        excache = checker.size_of("excache", *member);
    }
    if (!excache || memory.value() == 0) return ByteCount{};
    const ByteCount whole{excache->value() / kPageBytes * kPageBytes};
    if (whole.value() < kMinExcacheBytes) {
        checker.fail("excache is " + format_size(whole) + ", it must be at least " +
                     format_size(ByteCount{kMinExcacheBytes}));
    }
    if (whole > memory) {
        checker.fail("excache is " + format_size(whole) + ", more than the memory of " + format_size(memory));
    }
    return whole;
}

void check_files(Checker& checker, VnodeRecord& record)
{
    record.kernel = checker.text("kernel", "");
    if (checker.body().find("kernel") == nullptr) {
        checker.fail("kernel is missing");
    } else if (!is_plain_file_name(record.kernel)) {
        checker.fail("kernel must be a plain file name");
    }
    record.initrd = checker.text("initrd", "");
    if (!record.initrd.empty() && !is_plain_file_name(record.initrd)) {
        checker.fail("initrd must be a plain file name");
    }
    record.cmdline = checker.text("cmdline", kDefaultCmdline);
    const bool printable = std::all_of(record.cmdline.begin(), record.cmdline.end(),
                                       [](char c) { return c >= ' ' && c <= '~'; });
    if (!printable || record.cmdline.size() > kMaxCmdlineBytes) {
        checker.fail("cmdline must be at most " + std::to_string(kMaxCmdlineBytes) + " printable ASCII characters");
    }
}

void check_disks(Checker& checker, VnodeRecord& record)
{
    std::set<std::string> seen;
    for (const Json& disk : checker.list("volumes", kMaxDisks)) {
        Checker member{disk, "each"};
        member.only({"name", "read_only"});
        DiskRecord made{member.text("name", ""), member.flag("read_only")};
        if (!member.ok()) {
            checker.fail("volumes: " + member.problem().detail);
        } else if (!is_valid_name(made.volume)) {
            checker.fail("volumes: '" + made.volume + "' is not a valid name");
        } else if (!seen.insert(made.volume).second) {
            checker.fail("volumes: '" + made.volume + "' is named twice");
        }
        record.disks.push_back(std::move(made));
    }
}

bool is_tap_name(std::string_view tap)
{
    const auto is_plain = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
               c == '.';
    };
    return !tap.empty() && tap.size() <= 15 && tap != "." && tap != ".." && std::all_of(tap.begin(), tap.end(), is_plain);
}

/// Six lower-case hexadecimal pairs, not of a group address.
bool is_mac(std::string_view mac)
{
    if (mac.size() != 17) return false;
    for (std::size_t i = 0; i < mac.size(); ++i) {
        const char c = mac[i];
        const bool is_digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (i % 3 == 2 ? c != ':' : !is_digit) return false;
    }
    const auto low_digit = mac[1] <= '9' ? mac[1] - '0' : mac[1] - 'a' + 10;
    return low_digit % 2 == 0 && mac != "00:00:00:00:00:00";
}

/// A random address under the prefix that virtual machines commonly have.
std::string new_mac()
{
    const std::string digits = new_capability();
    return "52:54:00:" + digits.substr(0, 2) + ":" + digits.substr(2, 2) + ":" + digits.substr(4, 2);
}

void check_nets(Checker& checker, VnodeRecord& record)
{
    for (const Json& net : checker.list("nets", kMaxNets)) {
        Checker member{net, "each"};
        member.only({"tap", "mac"});
        NetRecord made{member.text("tap", ""), member.text("mac", "")};
        if (made.mac.empty()) made.mac = new_mac();
        if (!member.ok()) {
            checker.fail("nets: " + member.problem().detail);
        } else if (!is_tap_name(made.tap)) {
            checker.fail("nets: '" + made.tap + "' is not a valid name of a tap device");
        } else if (!is_mac(made.mac)) {
            checker.fail("nets: '" + made.mac + "' is not a station's MAC address (aa:bb:cc:dd:ee:ff, lower case)");
        }
        record.nets.push_back(std::move(made));
    }
}

void check_mechanism(Checker& checker, VnodeRecord& record)
{
    constexpr std::array<std::string_view, 3> kMechanisms = {"auto", "move", "write-protect"};
    record.mechanism = checker.text("mechanism", "auto");
    if (std::find(kMechanisms.begin(), kMechanisms.end(), record.mechanism) == kMechanisms.end()) {
        checker.fail("mechanism must be auto, move or write-protect");
    }
}

}  // namespace

Outcome<VnodeRequest> parse_vnode_request(const Json& body)
{
    Checker checker{body};
    VnodeRequest request;
    VnodeRecord& record = request.record;
    checker.only({"name", "memory", "excache", "vcpus", "kernel", "initrd", "cmdline", "volumes", "memory_copies", "nets",
                  "mechanism", "torture", "start"});
    if (body.if_object() == nullptr) return checker.problem();
    record.name = checker.text("name", "");
    check_name(checker, record.name);
    record.memory = check_memory(checker);
    record.excache = check_excache(checker, record.memory);
    record.vcpus = static_cast<std::uint32_t>(checker.number("vcpus", 1, 1, kMaxVcpus));
    record.memory_copies = static_cast<std::uint32_t>(checker.number("memory_copies", 1, 1, kMaxMemoryCopies));
    check_files(checker, record);
    check_disks(checker, record);
    check_nets(checker, record);
    check_mechanism(checker, record);
    record.torture = checker.flag("torture");
    request.start = checker.flag("start");
    if (!checker.ok()) return checker.problem();
    return request;
}

Outcome<VolumeRecord> parse_volume_request(const Json& body)
{
    Checker checker{body};
    checker.only({"name", "size", "image"});
    if (body.if_object() == nullptr) return checker.problem();
    VolumeRecord record;
    record.name = checker.text("name", "");
    check_name(checker, record.name);
    if (const auto size = checker.size("size")) {
        record.size = *size;
        if (size->value() == 0 || size->value() % kMiB != 0 || size->value() > 1024 * 1024 * kGiB) {
            checker.fail("size must be a multiple of 1 MiB, at most 1 PiB");
        }
    }
    record.image = checker.text("image", "");
    if (!record.image.empty() && !is_plain_file_name(record.image)) checker.fail("image must be a plain name");
    if (!checker.ok()) return checker.problem();
    return record;
}

Outcome<StopRequest> parse_stop_request(const Json& body)
{
    StopRequest request;
    if (body.is_null()) return request;
    Checker checker{body};
    checker.only({"grace_ms", "force"});
    if (body.if_object() == nullptr) return checker.problem();
    request.grace_ms = checker.number("grace_ms", kDefaultGraceMs, 0, kMaxGraceMs);
    request.force = checker.flag("force");
    if (!checker.ok()) return checker.problem();
    return request;
}

}  // namespace splitvisor::controller
