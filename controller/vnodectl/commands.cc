#include "controller/vnodectl/commands.h"

#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include "base/text.h"
#include "controller/vnodectl/format.h"
#include "controller/vnodectl/terminal.h"

namespace splitvisor::vnodectl {

namespace {

/// "NAME,REST" in two; the rest is empty where there is no comma.
std::pair<std::string, std::string> split(const std::string& text)
{
    const auto comma = text.find(',');
    if (comma == std::string::npos) return {text, {}};
    return {text.substr(0, comma), text.substr(comma + 1)};
}

/// A size stays text; a plain number becomes one.
Json size_json(const std::string& text)
{
    const auto number = parse_number(text);
    return number ? Json{*number} : Json{text};
}

Result<Json> vnode_body(const VnodeFlags& flags)
{
    Json volumes = Json::array();
    for (const std::string& volume : flags.volumes) {
        const auto [name, mode] = split(volume);
        if (!mode.empty() && mode != "ro" && mode != "rw") {
            return Error{ErrorCode::kInvalid, "--volume " + volume + ": write NAME, NAME,ro or NAME,rw"};
        }
        volumes.push(Json::object().set("name", name).set("read_only", mode == "ro"));
    }
    Json nets = Json::array();
    for (const std::string& net : flags.nets) {
        const auto [tap, mac] = split(net);
        Json made = Json::object();
        made.set("tap", tap);
        if (!mac.empty()) made.set("mac", mac);
        nets.push(std::move(made));
    }
    Json body = Json::object();
    body.set("name", flags.name).set("memory", size_json(flags.memory)).set("vcpus", flags.vcpus);
    if (!flags.excache.empty()) body.set("excache", size_json(flags.excache));
    body.set("kernel", flags.kernel);
    if (!flags.initrd.empty()) body.set("initrd", flags.initrd);
    if (!flags.cmdline.empty()) body.set("cmdline", flags.cmdline);
    if (!flags.mechanism.empty()) body.set("mechanism", flags.mechanism);
    if (flags.torture) body.set("torture", true);
    return body.set("volumes", std::move(volumes))
        .set("nets", std::move(nets))
        .set("memory_copies", flags.memory_copies)
        .set("start", flags.start);
}

}  // namespace

int fail(const std::string& message)
{
    std::fprintf(stderr, "vnodectl: %s\n", printable(message).c_str());
    return 1;
}

std::optional<Json> Commands::ask(const std::string& method, const std::string& path, const Json& body)
{
    auto answer = client_.request(method, path, body);
    if (!answer) {
        fail(answer.error().message());
        return std::nullopt;
    }
    if (answer->status >= 200 && answer->status < 300) return std::move(answer->body);
    const std::string detail = detail_of(*answer);
    std::string message = detail;
    std::string_view separator = ": ";
    for (const std::string& reason : answer->body.texts("reasons")) {
        // Of several wrong things in a request the first is the detail as well.
        if (reason == detail) continue;
        message.append(separator).append(reason);
        separator = "; ";
    }
    fail(message);
    return std::nullopt;
}

std::optional<std::string> Commands::path_of(const std::string& collection, const std::string& name) const
{
    // Anything else could be another path.
    if (is_valid_name(name)) return "/v1/" + collection + "/" + name;
    fail("'" + name + "' is not a valid name");
    return std::nullopt;
}

int Commands::print(const std::optional<Json>& body, std::string (*format)(const Json&))
{
    if (!body) return 1;
    std::fputs(json_ ? (body->pretty() + "\n").c_str() : format(*body).c_str(), stdout);
    return 0;
}

int Commands::act(const std::string& method, const std::string& path, const Json& body, const std::string& done)
{
    const auto answer = ask(method, path, body);
    if (!answer) return 1;
    if (json_) {
        std::puts(answer->is_null() ? "{}" : answer->pretty().c_str());
    } else {
        std::puts(done.c_str());
    }
    return 0;
}

int Commands::list_components()
{
    return print(ask("GET", "/v1/components"), format_components);
}

int Commands::show_component(const std::string& name)
{
    const auto path = path_of("components", name);
    return path ? print(ask("GET", *path), format_details) : 1;
}

int Commands::list_vnodes()
{
    return print(ask("GET", "/v1/vnodes"), format_vnodes);
}

int Commands::show_vnode(const std::string& name)
{
    const auto path = path_of("vnodes", name);
    return path ? print(ask("GET", *path), format_details) : 1;
}

int Commands::create_vnode(const VnodeFlags& flags)
{
    const auto body = vnode_body(flags);
    if (!body) return fail(body.error().message());
    return act("POST", "/v1/vnodes", *body,
               "vNode '" + flags.name + "' is " + (flags.start ? "created and runs" : "created"));
}

int Commands::start_vnode(const std::string& name)
{
    const auto path = path_of("vnodes", name);
    return path ? act("POST", *path + "/start", {}, "vNode '" + name + "' runs") : 1;
}

int Commands::stop_vnode(const std::string& name, const StopFlags& flags)
{
    const auto path = path_of("vnodes", name);
    if (!path) return 1;
    const Json body = Json::object()
                          .set("grace_ms", static_cast<std::uint64_t>(std::llround(flags.grace_s * 1000)))
                          .set("force", flags.force);
    return act("POST", *path + "/stop", body, "vNode '" + name + "' is stopped");
}

int Commands::delete_vnode(const std::string& name)
{
    const auto path = path_of("vnodes", name);
    return path ? act("DELETE", *path, {}, "vNode '" + name + "' is deleted") : 1;
}

int Commands::vnode_stats(const std::string& name)
{
    const auto path = path_of("vnodes", name);
    return path ? print(ask("GET", *path + "/stats"), format_details) : 1;
}

int Commands::vnode_console(const std::string& name, double idle_s)
{
    const auto path = path_of("vnodes", name);
    if (!path) return 1;
    RawTerminal terminal;
    Client::ConsoleOptions options;
    options.idle_ms = static_cast<std::uint64_t>(std::llround(idle_s * 1000));
    // Bytes from a pipe belong to the guest, whatever they are.
    if (!terminal.is_terminal()) options.detach_key.clear();
    options.attached = [&terminal, &name] {
        if (!terminal.is_terminal()) return;
        std::fprintf(stderr, "vnodectl: attached to '%s'; Ctrl-] detaches\n", name.c_str());
        terminal.enter();
    };
    const auto ended = client_.console(*path + "/console", options);
    terminal.leave();
    if (!ended) return fail(ended.error().message());
    std::fprintf(stderr, "%svnodectl: console of '%s': %s\n", terminal.is_terminal() ? "\n" : "", name.c_str(),
                 printable(*ended).c_str());
    return 0;
}

int Commands::list_volumes()
{
    return print(ask("GET", "/v1/volumes"), format_volumes);
}

int Commands::show_volume(const std::string& name)
{
    const auto path = path_of("volumes", name);
    return path ? print(ask("GET", *path), format_details) : 1;
}

int Commands::create_volume(const std::string& name, const std::string& size, const std::string& image)
{
    Json body = Json::object();
    body.set("name", name).set("size", size_json(size));
    if (!image.empty()) body.set("image", image);
    return act("POST", "/v1/volumes", body, "volume '" + name + "' is created");
}

int Commands::delete_volume(const std::string& name)
{
    const auto path = path_of("volumes", name);
    return path ? act("DELETE", *path, {}, "volume '" + name + "' is deleted") : 1;
}

int Commands::version()
{
    return print(ask("GET", "/v1/version"), format_details);
}

}  // namespace splitvisor::vnodectl
