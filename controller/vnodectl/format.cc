#include "controller/vnodectl/format.h"

#include <vector>

#include "base/text.h"
#include "controller/vnodectl/table.h"

namespace splitvisor::vnodectl {

using controller::Json;

namespace {

std::string size_of(const Json& object, std::string_view key)
{
    const Json* member = object.find(key);
    const auto bytes = member != nullptr ? member->if_unsigned() : std::nullopt;
    return bytes ? format_size(ByteCount{*bytes}) : "-";
}

std::string text_of(const Json& object, std::string_view key)
{
    const std::string text = object.text(key);
    return text.empty() ? "-" : printable(text);
}

/// A value that is neither object nor list.
std::string scalar(std::string_view key, const Json& value)
{
    if (value.is_null()) return "-";
    if (const auto bytes = value.if_unsigned(); bytes && key.ends_with("_bytes")) {
        return format_size(ByteCount{*bytes}) + " (" + std::to_string(*bytes) + ")";
    }
    const std::string* text = value.if_string();
    return printable(text != nullptr ? *text : value.dump());
}

void add_value(std::string& out, const std::string& indent, const std::string& key, const Json& value);

void add_object(std::string& out, const std::string& indent, const Json::Object& object)
{
    for (const auto& [key, value] : object) add_value(out, indent, key, value);
}

void add_value(std::string& out, const std::string& indent, const std::string& name, const Json& value)
{
    const std::string key = printable(name);
    if (const auto* object = value.if_object()) {
        out += indent + key + ":\n";
        add_object(out, indent + "  ", *object);
    } else if (const auto* list = value.if_array()) {
        out += indent + key + ":" + (list->empty() ? " -" : "") + "\n";
        for (const Json& element : *list) {
            if (element.if_object() != nullptr || element.if_array() != nullptr) {
                out += indent + "  - " + printable(element.dump()) + "\n";
            } else {
                out += indent + "  - " + scalar(key, element) + "\n";
            }
        }
    } else {
        out += indent + key + ": " + scalar(key, value) + "\n";
    }
}

}  // namespace

std::string printable(std::string_view text)
{
    std::string clean;
    for (const char c : text) clean += static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? '?' : c;
    return clean;
}

std::string format_components(const Json& body)
{
    std::vector<std::vector<std::string>> rows{{"NAME", "KIND", "STATE", "CAPACITY", "ALLOCATED", "USED", "ENDPOINT"}};
    for (const Json& component : body.elements("components")) {
        rows.push_back({text_of(component, "name"), text_of(component, "kind"),
                        component.flag("connected") ? "connected" : "away", size_of(component, "capacity_bytes"),
                        size_of(component, "allocated_bytes"), size_of(component, "used_bytes"),
                        text_of(component, "data_endpoint")});
    }
    return format_table(rows);
}

std::string format_vnodes(const Json& body)
{
    std::vector<std::vector<std::string>> rows{
        {"NAME", "STATE", "VCPUS", "MEMORY", "EXCACHE", "COPIES", "PCOMPONENT", "REASON"}};
    for (const Json& vnode : body.elements("vnodes")) {
        rows.push_back({text_of(vnode, "name"), text_of(vnode, "state"), std::to_string(vnode.number("vcpus")),
                        size_of(vnode, "memory_bytes"), size_of(vnode, "excache_bytes"),
                        std::to_string(vnode.number("memory_copies")), text_of(vnode, "pcomponent"),
                        text_of(vnode, "reason")});
    }
    return format_table(rows);
}

std::string format_volumes(const Json& body)
{
    std::vector<std::vector<std::string>> rows{{"NAME", "STATE", "SIZE", "IMAGE", "SCOMPONENT", "ATTACHED TO"}};
    for (const Json& volume : body.elements("volumes")) {
        rows.push_back({text_of(volume, "name"), text_of(volume, "state"), size_of(volume, "size_bytes"),
                        text_of(volume, "image"), text_of(volume, "component"), text_of(volume, "attached_to")});
    }
    return format_table(rows);
}

std::string format_details(const Json& body)
{
    std::string out;
    if (const auto* object = body.if_object()) add_object(out, "", *object);
    return out;
}

}  // namespace splitvisor::vnodectl
