#include "vmm/config.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/capability.h"
#include "base/checked.h"
#include "base/text.h"
#include "fabric/connection.h"
#include "vmm/acpi/tables.h"
#include "vmm/boot/layout.h"

namespace splitvisor::vmm {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMinMemory = 16 * kMiB;
// The limits of ept::FaultEngine, told before anything is started.
constexpr std::uint64_t kMaxMemory = 1024 * kGiB;
constexpr std::uint64_t kMinExcache = 4 * kMiB;
constexpr std::size_t kMaxRegions = 4096;
constexpr std::size_t kMaxReplicas = 8;
constexpr std::size_t kMaxErrors = 8;
/// sockaddr_un::sun_path has 108 bytes; "/console.sock" and a terminator must fit behind the folder.
constexpr std::size_t kMaxRunDir = 108 - 14;

/// Keys and parser messages quote the document, which may hold anything of any length; an error is one readable line.
std::string readable(std::string_view text, std::size_t most)
{
    std::string line{text.substr(0, most)};
    std::ranges::replace_if(line, [](char c) { return c < ' ' || c > '~'; }, '?');
    return text.size() > most ? line + "..." : line;
}

/// Gathers what is wrong, each with the place where it is wrong.
class Complaints {
  public:
    void add(const std::string& where, std::string_view what)
    {
        ++count_;
        if (count_ > kMaxErrors) return;
        if (!text_.empty()) text_ += "; ";
        text_ += where.empty() ? std::string{what} : where + ": " + std::string{what};
    }
    [[nodiscard]] bool none() const { return count_ == 0; }
    [[nodiscard]] Error error() const
    {
        const auto more =
            count_ > kMaxErrors ? "; and " + std::to_string(count_ - kMaxErrors) + " more" : std::string{};
        return Error{ErrorCode::kInvalid, text_ + more};
    }

  private:
    std::string text_;
    std::size_t count_ = 0;
};

/// Reads the members of one JSON object, complaining about each that is missing, of the wrong type, or unknown.
class Reader {
  public:
    Reader(const Json& object, std::string where, Complaints& complaints)
        : object_{object}, where_{std::move(where)}, complaints_{complaints}
    {
        if (!object_.is_object()) complaints_.add(where_, "must be an object");
    }

    [[nodiscard]] std::string at(std::string_view key) const
    {
        return where_.empty() ? std::string{key} : where_ + "." + std::string{key};
    }
    void complain(std::string_view key, std::string_view what) { complaints_.add(at(key), what); }

    /// The member, or null where it is absent; `required` complains then.
    const Json* find(const char* key, bool required)
    {
        known_.insert(key);
        if (!object_.is_object()) return nullptr;
        const auto member = object_.find(key);
        if (member != object_.end()) return &*member;
        if (required) complain(key, "is missing");
        return nullptr;
    }

    std::string text(const char* key, bool required, std::size_t most = 4096)
    {
        const auto* member = find(key, required);
        if (member == nullptr) return {};
        if (!member->is_string()) {
            complain(key, "must be a string");
            return {};
        }
        auto value = member->get<std::string>();
        if (value.size() > most) complain(key, "is longer than " + std::to_string(most) + " characters");
        if (value.find('\0') != std::string::npos) complain(key, "holds a zero byte");
        if (required && value.empty()) complain(key, "is empty");
        return value;
    }

    std::uint64_t number(const char* key, std::uint64_t least, std::uint64_t most)
    {
        const auto* member = find(key, true);
        if (member == nullptr) return least;
        if (!member->is_number_unsigned()) {
            complain(key, "must be a whole number");
            return least;
        }
        const auto value = member->get<std::uint64_t>();
        if (value >= least && value <= most) return value;
        complain(key, "must be from " + std::to_string(least) + " to " + std::to_string(most));
        return least;
    }

    bool flag(const char* key)
    {
        const auto* member = find(key, false);
        if (member == nullptr) return false;
        if (!member->is_boolean()) complain(key, "must be true or false");
        return member->is_boolean() && member->get<bool>();
    }

    /// Calls `each(element, place)` for the elements of an array of at most `most`; an absent one is empty.
    template <typename Each>
    void array(const char* key, bool required, std::size_t most, Each each)
    {
        const auto* member = find(key, required);
        if (member == nullptr) return;
        if (!member->is_array()) return complain(key, "must be an array");
        if (member->size() > most) return complain(key, "has more than " + std::to_string(most) + " elements");
        for (std::size_t i = 0; i < member->size(); ++i) {
            Reader element{(*member)[i], at(key) + "[" + std::to_string(i) + "]", complaints_};
            each(element);
            element.refuse_unknown();
        }
    }

    void refuse_unknown()
    {
        if (!object_.is_object()) return;
        for (const auto& [key, value] : object_.items()) {
            if (!known_.contains(key)) complain(readable(key, 64), "is not a known key");
        }
    }

  private:
    const Json& object_;
    std::string where_;
    Complaints& complaints_;
    std::set<std::string, std::less<>> known_;
};

std::uint64_t read_size(Reader& reader, const char* key, std::uint64_t least, std::uint64_t most, std::uint64_t unit)
{
    const auto value = reader.number(key, least, most);
    if (value % unit != 0) reader.complain(key, "must be a multiple of " + std::to_string(unit));
    return value;
}

Capability read_capability(Reader& reader)
{
    const auto text = reader.text("capability", true);
    if (text.empty()) return {};
    const auto capability = parse_capability(text);
    if (!capability) {
        reader.complain("capability", "must be 32 hexadecimal digits");
        return {};
    }
    return *capability;
}

std::string read_path(Reader& reader, const char* key, bool required)
{
    auto path = reader.text(key, required);
    if (!path.empty() && path.front() != '/') reader.complain(key, "must be an absolute path");
    return path;
}

/// Its syntax, in one spelling; the peer is not looked at.
std::string read_endpoint(Reader& reader)
{
    const auto text = reader.text("endpoint", true);
    if (text.empty()) return text;
    const auto endpoint = fabric::Endpoint::parse(text);
    if (endpoint) return endpoint->to_string();
    reader.complain("endpoint", readable(endpoint.error().message(), 128));
    return {};
}

/// Where the parts of a vNode lie. Two on one place would overwrite each other without a sign.
class Places {
  public:
    void add(const std::string& endpoint, std::uint64_t id)
    {
        if (endpoint.empty()) return;  // complained about already
        twice_ = !places_.emplace(endpoint, id).second || twice_;
    }
    [[nodiscard]] bool twice() const { return twice_; }

  private:
    std::set<std::pair<std::string, std::uint64_t>> places_;
    bool twice_ = false;
};

void read_regions(Reader& reader, Config& config, MemoryKind kind)
{
    constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
    std::uint64_t sum = 0;
    Places places;
    reader.array("regions", kind == MemoryKind::kRemote, kMaxRegions, [&](Reader& element) {
        RegionSpec region;
        region.size = ByteCount{read_size(element, "size_bytes", kPageBytes, kMaxMemory, kPageBytes)};
        element.array("replicas", true, kMaxReplicas, [&](Reader& item) {
            ReplicaSpec replica;
            replica.component = item.text("component", true);
            replica.endpoint = read_endpoint(item);
            replica.region = RegionId{item.number("region", 0, kNoLimit)};
            replica.capability = read_capability(item);
            places.add(replica.endpoint, replica.region.value());
            region.replicas.push_back(std::move(replica));
        });
        if (region.replicas.empty()) element.complain("replicas", "has no element");
        sum += region.size.value();
        config.regions.push_back(std::move(region));
    });
    if (places.twice()) reader.complain("regions", "two of them lie in the same vRegion");
    const bool wanted = kind == MemoryKind::kRemote || !config.regions.empty();
    if (wanted && sum != config.memory.value()) {
        reader.complain("regions", "sum up to " + std::to_string(sum) + " bytes, memory_bytes is " +
                                       std::to_string(config.memory.value()));
    }
}

void read_disks(Reader& reader, Config& config)
{
    constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
    constexpr std::uint64_t kSectorBytes = 512;
    constexpr std::uint64_t kMaxDisk = std::uint64_t{1} << 60;
    Places places;
    reader.array("disks", false, layout::kMaxVirtioDevices, [&](Reader& element) {
        DiskSpec disk;
        disk.name = element.text("name", true);
        disk.endpoint = read_endpoint(element);
        disk.volume = VolumeId{element.number("volume", 0, kNoLimit)};
        disk.capability = read_capability(element);
        disk.size = ByteCount{read_size(element, "size_bytes", kSectorBytes, kMaxDisk, kSectorBytes)};
        disk.read_only = element.flag("read_only");
        places.add(disk.endpoint, disk.volume.value());
        config.disks.push_back(std::move(disk));
    });
    if (places.twice()) reader.complain("disks", "two of them are the same volume");
}

std::optional<MacAddress> parse_mac(std::string_view text)
{
    constexpr std::size_t kTextLength = 17;
    if (text.size() != kTextLength) return std::nullopt;
    MacAddress mac{};
    for (std::size_t i = 0; i < mac.size(); ++i) {
        const auto byte = from_hex(text.substr(3 * i, 2));
        if (!byte || (i > 0 && text[3 * i - 1] != ':')) return std::nullopt;
        mac[i] = static_cast<std::uint8_t>(byte->front());
    }
    return mac;
}

void read_nets(Reader& reader, Config& config)
{
    constexpr std::size_t kMaxInterfaceName = 15;  // IFNAMSIZ without its terminator
    reader.array("nets", false, layout::kMaxVirtioDevices, [&](Reader& element) {
        NetSpec net;
        net.tap = element.text("tap", true, kMaxInterfaceName);
        const auto mac_text = element.text("mac", true);
        if (const auto mac = parse_mac(mac_text)) {
            net.mac = *mac;
            if ((net.mac[0] & 1) != 0) element.complain("mac", "is a group address");
        } else if (!mac_text.empty()) {
            element.complain("mac", "must look like 52:54:00:12:34:56");
        }
        config.nets.push_back(std::move(net));
    });
}

void read_mechanism(Reader& reader, Config& config)
{
    const auto text = reader.text("memory_mechanism", false);
    if (text.empty() || text == "auto") return;
    if (text == "move") {
        config.mechanism = ept::Mechanism::kMove;
    } else if (text == "write-protect") {
        config.mechanism = ept::Mechanism::kWriteProtect;
    } else {
        reader.complain("memory_mechanism", "must be auto, move or write-protect");
    }
}

Config read_config(Reader& reader, MemoryKind kind)
{
    Config config;
    constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
    config.name = reader.text("name", true);
    if (!config.name.empty() && !is_valid_name(config.name)) {
        reader.complain("name", "must be 1 to 63 of a-z, 0-9 and -, starting with a letter");
    }
    config.epoch = Epoch{reader.number("epoch", 0, kNoLimit)};
    config.memory = ByteCount{read_size(reader, "memory_bytes", kMinMemory, kMaxMemory, kPageBytes)};
    if (kind == MemoryKind::kRemote || reader.find("excache_bytes", false) != nullptr) {
        const auto most = std::max(config.memory.value(), kMinMemory);
        config.excache = ByteCount{read_size(reader, "excache_bytes", kMinExcache, most, kPageBytes)};
    }
    config.vcpus = static_cast<std::uint32_t>(reader.number("vcpus", 1, acpi::kMaxVcpus));
    config.kernel = read_path(reader, "kernel", true);
    config.initrd = read_path(reader, "initrd", false);
    config.command_line = reader.text("cmdline", false);
    config.run_dir = read_path(reader, "run_dir", true);
    if (config.run_dir.size() > kMaxRunDir) {
        reader.complain("run_dir", "is longer than " + std::to_string(kMaxRunDir) +
                                       " characters, too long for the names of its sockets");
    }
    read_regions(reader, config, kind);
    read_disks(reader, config);
    read_nets(reader, config);
    read_mechanism(reader, config);
    config.torture = reader.flag("torture");
    return config;
}

}  // namespace

/// The document, or one line that says at which line and column it stops being JSON.
static Result<Json> parse_document(std::string_view text)
{
    constexpr int kMaxDepth = 16;
    bool too_deep = false;
    std::string twice;
    std::vector<std::set<std::string>> keys;  // of the objects that are open
    const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
        too_deep = too_deep || depth > kMaxDepth;
        if (too_deep) return false;
        if (event == Json::parse_event_t::object_start) keys.emplace_back();
        if (event == Json::parse_event_t::object_end) keys.pop_back();
        if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
            twice = readable(parsed.get<std::string>(), 64);
        }
        return true;
    };
    try {
        auto document = Json::parse(text, check);
        if (too_deep) return Error{ErrorCode::kInvalid, "nested too deeply"};
        if (!twice.empty()) return Error{ErrorCode::kInvalid, twice + ": stands twice in one object"};
        return document;
    } catch (const Json::exception& exception) {
        const std::string_view what = exception.what();
        const auto prefix = what.find("] ");  // "[json.exception.parse_error.101] "
        return Error{ErrorCode::kInvalid,
                     readable(prefix == std::string_view::npos ? what : what.substr(prefix + 2), 256)};
    }
}

Result<Config> parse_config(std::string_view json, MemoryKind memory_kind)
{
    const auto document = parse_document(json);
    if (!document) return document.error();
    Complaints complaints;
    Reader reader{*document, {}, complaints};
    auto config = read_config(reader, memory_kind);
    reader.refuse_unknown();
    constexpr std::size_t kFixedVirtioDevices = 2;  // balloon and entropy source
    if (config.disks.size() + config.nets.size() + kFixedVirtioDevices > layout::kMaxVirtioDevices) {
        complaints.add("disks, nets", "more than " + std::to_string(layout::kMaxVirtioDevices - kFixedVirtioDevices) +
                                          " devices together");
    }
    if (!complaints.none()) return complaints.error();
    return config;
}

}  // namespace splitvisor::vmm
