#include "base/capability.h"

#include "base/bytes.h"
#include "base/text.h"

namespace splitvisor {

Result<Capability> parse_capability(std::string_view text)
{
    const auto bytes = from_hex(text);
    if (!bytes || bytes->size() != sizeof(Capability)) {
        return Error{ErrorCode::kInvalid, "a capability has 32 hexadecimal digits"};
    }
    return load<Capability>(std::as_bytes(std::span{*bytes}));
}

}  // namespace splitvisor
