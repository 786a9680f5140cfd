#include "tests/bench/backing.h"

#include <string>

#include "tests/bench/in_process_store.h"

namespace splitvisor::bench {
namespace {

class InProcessBacking final : public Backing {
  public:
    Result<std::unique_ptr<remote_mem::PageStore>> open(ByteCount memory) override
    {
        return make_in_process_store(memory);
    }
};

}  // namespace

Result<BackingKind> parse_backing(std::string_view text)
{
    for (const auto kind : {BackingKind::kTcp, BackingKind::kInProcess, BackingKind::kLocal}) {
        if (to_string(kind) == text) return kind;
    }
    return Error{ErrorCode::kInvalid, "'" + std::string{text} + "' is not a backing; there are tcp, inprocess, local"};
}

std::string_view to_string(BackingKind kind)
{
    switch (kind) {
    case BackingKind::kTcp: return "tcp";
    case BackingKind::kInProcess: return "inprocess";
    case BackingKind::kLocal: return "local";
    }
    return "unknown";
}

Result<std::unique_ptr<Backing>> make_backing(BackingKind kind, ByteCount)
{
    if (kind == BackingKind::kInProcess) return std::unique_ptr<Backing>{std::make_unique<InProcessBacking>()};
    return Error{ErrorCode::kUnsupported, std::string{to_string(kind)} + ": not built in"};
}

}  // namespace splitvisor::bench
