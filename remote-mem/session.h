#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "remote-mem/link.h"
#include "remote-mem/placement.h"

namespace splitvisor::remote_mem {

/// One thread's connections to all mComponents of its vNode.
///
/// A call is cut into batches: pages of one vRegion that fit one request. It then goes in rounds: send what
/// can be sent to all mComponents, take in all replies, think; until nothing is left or the patience is over.
/// Between rounds no request is under way. Nothing is allocated once the vectors have grown to their working
/// size.
class Session final : public PageSession {
  public:
    explicit Session(Placement& placement);

    /// Asks each replica of each vRegion whether it lets us in.
    [[nodiscard]] Status check_access();

    [[nodiscard]] Status read(std::span<PageRead> pages) override;
    [[nodiscard]] Status write(std::span<const PageWrite> pages) override;
    [[nodiscard]] Status drop(std::span<const Line> lines, Version version) override;

  private:
    /// What the call in progress is about; the spans are the caller's.
    struct Items {
        Request kind = Request::kCheck;
        std::span<PageRead> reads{};
        std::span<const PageWrite> writes{};
        std::span<const Line> drops{};
        Version drop_version{};

        [[nodiscard]] std::size_t size() const;
        [[nodiscard]] Line line(std::uint32_t item) const;
    };
    struct Batch {
        std::uint32_t region = 0;
        std::uint32_t first = 0;    ///< of order_
        std::uint32_t count = 0;    ///< reads: of pages that are still to be read
        ReplicaMask done = 0;       ///< updates: have acknowledged
        ReplicaMask under_way = 0;  ///< asked in this round
        ReplicaMask rejected = 0;   ///< reads: hold damaged pages
        bool complete = false;
    };
    struct Sent {
        std::uint32_t batch;
        std::uint32_t replica;
        std::uint64_t generation;  ///< of the link
    };

    [[nodiscard]] Status make_batches(const Items& items);
    [[nodiscard]] Status order_by_region();
    [[nodiscard]] Status run(bool is_read);
    void begin_round();
    void pause(std::uint64_t deadline_ms);
    [[nodiscard]] bool all_complete() const;
    [[nodiscard]] Link& link_of(const Batch& batch, std::uint32_t replica);
    [[nodiscard]] bool has_window(const Batch& batch, std::uint32_t replica) const;
    [[nodiscard]] Status send(std::uint32_t batch, std::uint32_t replica);
    void build_request(const Batch& batch, std::uint32_t replica);

    void send_updates(std::uint64_t deadline_ms, bool connected_only);
    void take_update_replies(std::uint64_t deadline_ms);
    [[nodiscard]] Status take_update_reply(const Sent& sent, std::uint64_t deadline_ms);
    [[nodiscard]] Status settle();

    void send_reads(std::uint64_t deadline_ms);
    void send_read(std::uint32_t batch, std::uint64_t deadline_ms);
    [[nodiscard]] std::optional<std::uint32_t> choose_replica(const Batch& batch);
    void take_read_replies(std::uint64_t deadline_ms);
    [[nodiscard]] Status take_read_reply(const Sent& sent, std::uint64_t deadline_ms);
    [[nodiscard]] Status take_pages(Batch& batch, std::uint32_t replica, const fabric::Incoming& reply);
    [[nodiscard]] Status scatter(const Batch& batch, Link& link, const fabric::Incoming& reply);

    [[nodiscard]] Status take_refusal(const Sent& sent, const fabric::Incoming& reply);
    [[nodiscard]] Error out_of_patience() const;

    Placement& placement_;
    std::vector<Link> links_;            ///< one a component
    std::vector<std::uint32_t> window_;  ///< requests under way, one a component

    Items items_;
    std::vector<std::uint32_t> order_;            ///< items, those of one vRegion together
    std::vector<Placement::Location> locations_;  ///< of items
    std::vector<Batch> batches_;
    std::vector<Sent> sent_;             ///< in this round, in order
    std::optional<Error> fatal_;         ///< what ends the call
    std::optional<Error> last_failure_;  ///< what it ends with if patience runs out

    std::vector<std::byte> head_;
    std::vector<iovec> vectors_;
};

}  // namespace splitvisor::remote_mem
