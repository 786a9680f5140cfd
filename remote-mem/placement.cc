#include "remote-mem/placement.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/checked.h"
#include "base/log.h"

namespace splitvisor::remote_mem {

namespace {

Error invalid(std::string message)
{
    return Error{ErrorCode::kInvalid, std::move(message)};
}

}  // namespace

Result<std::unique_ptr<Placement>> Placement::create(const RemoteMemoryOptions& options)
{
    if (options.regions.empty()) return invalid("a vNode has at least one region");
    if (options.patience_ms == 0 || options.patience_ms > 3'600'000)
        return invalid("patience is 1 ms to 1 h");
    std::unique_ptr<Placement> placement{new Placement{options.epoch, options.patience_ms}};
    for (const auto& region : options.regions) SPLITVISOR_TRY(placement->add_region(region));
    return placement;
}

Status Placement::add_region(const RegionOptions& options)
{
    const auto first =
        regions_.empty() ? 0 : std::uint64_t{regions_.back().first_line} + regions_.back().page_count;
    const auto pages = options.size.value() >> kPageShift;
    if (pages == 0 || options.size.value() % kPageBytes != 0) {
        return invalid("the size of a region is a multiple of 4096 bytes and not 0");
    }
    if (pages > std::numeric_limits<std::uint32_t>::max() - first)
        return invalid("all regions have less than 16 TiB");
    if (options.replicas.empty() || options.replicas.size() > kMaxReplicas) {
        return invalid("a region has 1 to " + std::to_string(kMaxReplicas) + " replicas");
    }
    auto& region = regions_.emplace_back();
    region.first_line = static_cast<std::uint32_t>(first);
    region.page_count = static_cast<std::uint32_t>(pages);
    for (const auto& replica : options.replicas) {
        const auto component = component_index(replica);
        for (const auto& copy : region.copies) {
            if (copy.component == component)
                return invalid("two replicas of a region are on " + replica.component);
        }
        region.copies.push_back({component, replica.region, replica.capability});
    }
    region.live.store((ReplicaMask{1} << region.copies.size()) - 1);
    return {};
}

/// Components are the same where their endpoints are.
std::uint32_t Placement::component_index(const Replica& replica)
{
    const auto found = std::ranges::find(components_, replica.endpoint, &Component::endpoint);
    const auto index = narrow<std::uint32_t>(found - components_.begin());
    if (found == components_.end()) components_.push_back({replica.component, replica.endpoint});
    return index;
}

std::optional<Placement::Location> Placement::locate(Line line) const
{
    const auto after = std::ranges::upper_bound(regions_, line.value(), {}, &Region::first_line);
    // The first region begins at line 0, so there is one before `after`.
    const auto region = static_cast<std::uint32_t>(after - regions_.begin() - 1);
    const auto page = line.value() - regions_[region].first_line;
    if (page >= regions_[region].page_count) return std::nullopt;
    return Location{region, page};
}

bool Placement::give_up(std::uint32_t region, std::uint32_t replica, const Error& reason)
{
    auto& live = regions_[region].live;
    const auto lost = ReplicaMask{1} << replica;
    auto before = live.load();
    do {
        if ((before & ~lost) == 0) return false;
    } while (!live.compare_exchange_weak(before, before & ~lost));
    report_lost(regions_[region], before & lost, reason.message());
    return true;
}

bool Placement::settle(std::uint32_t region, ReplicaMask acknowledged)
{
    auto& live = regions_[region].live;
    auto before = live.load();
    do {
        if ((before & acknowledged) == 0) return false;
    } while (!live.compare_exchange_weak(before, before & acknowledged));
    report_lost(regions_[region], before & ~acknowledged, "it did not take a write");
    return true;
}

void Placement::report_lost(const Region& region, ReplicaMask lost, std::string_view reason) const
{
    for (std::size_t i = 0; i < region.copies.size(); ++i) {
        if ((lost >> i & 1) == 0) continue;
        const auto& copy = region.copies[i];
        log_error("replica lost", field("component", components_[copy.component].name) +
                                      field("region", copy.region.value()) + field("reason", reason));
    }
}

std::vector<LostReplica> Placement::lost() const
{
    std::vector<LostReplica> lost;
    for (const auto& region : regions_) {
        const auto live = region.live.load();
        for (std::size_t i = 0; i < region.copies.size(); ++i) {
            if ((live >> i & 1) != 0) continue;
            lost.push_back({components_[region.copies[i].component].name, region.copies[i].region});
        }
    }
    return lost;
}

}  // namespace splitvisor::remote_mem
