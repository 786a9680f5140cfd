#include <sys/mman.h>

#include "base/log.h"
#include "base/mapping.h"
#include "vmm/guest_ram.h"

namespace splitvisor::vmm {
namespace {

class LocalRam final : public GuestRam {
  public:
    explicit LocalRam(Mapping mapping) : mapping_{std::move(mapping)} {}

    [[nodiscard]] std::span<std::byte> bytes() const override { return mapping_.bytes(); }
    void forget(Line first, std::uint32_t count) override
    {
        const auto lines = mapping_.bytes().subspan(first.byte_offset(), PageCount{count}.bytes().value());
        SPLITVISOR_CHECK(::madvise(lines.data(), lines.size(), MADV_DONTNEED) == 0);
    }
    [[nodiscard]] std::optional<ept::EngineStats> stats() const override { return std::nullopt; }

  private:
    Mapping mapping_;
};

}  // namespace

Result<std::unique_ptr<GuestRam>> make_local_ram(const Config& config)
{
    auto mapping = Mapping::anonymous(config.memory);
    if (!mapping) return mapping.error().in("guest memory");
    return std::unique_ptr<GuestRam>{std::make_unique<LocalRam>(std::move(*mapping))};
}

}  // namespace splitvisor::vmm
