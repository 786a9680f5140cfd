#include <vector>

#include "guests/ring3/touch.h"
#include "guests/ring3/verify.h"

namespace splitvisor::ring3 {
namespace {

/// Plays all touches without an arena: how often each page is written, what the words read add up to.
class TouchVerifier final : public Verifier {
  public:
    explicit TouchVerifier(const Parameters& parameters)
        : parameters_{parameters}, counters_(parameters.arena_bytes / kPage), sums_(parameters.vcpus)
    {
        for (std::uint32_t vcpu = 0; vcpu < parameters.vcpus; ++vcpu) play(vcpu);
    }

    Status check(std::span<const Outcome> outcomes, std::span<const std::byte> arena) const override
    {
        for (std::uint32_t vcpu = 0; vcpu < parameters_.vcpus; ++vcpu) {
            if (outcomes[vcpu].operations != parameters_.operations) return corrupt("a vCPU left out touches");
            if (outcomes[vcpu].checksum != sums_[vcpu]) {
                return corrupt("vCPU " + std::to_string(vcpu) + " has read wrong words");
            }
        }
        for (std::uint64_t page = 0; page < counters_.size(); ++page) SPLITVISOR_TRY(check_page(arena, page));
        return {};
    }

  private:
    void play(std::uint32_t vcpu)
    {
        for (std::uint64_t i = 0; i < parameters_.operations; ++i) {
            const auto touch = touch_at(parameters_, vcpu, i);
            if (parameters_.access == Access::kRead) {
                sums_[vcpu] += pattern_word(parameters_.seed, touch.page, touch.word);
            } else {
                ++counters_[touch.page];
            }
        }
    }

    [[nodiscard]] Status check_page(std::span<const std::byte> arena, std::uint64_t page) const
    {
        const auto count = load<std::uint64_t>(arena, page * kPage);
        if (count != counters_[page]) {
            return corrupt(page_name(page * kPage) + " counted " + std::to_string(count) + " writes instead of " +
                           std::to_string(counters_[page]));
        }
        std::uint64_t different = 0;
        for (std::uint64_t word = 1; word < kWordsPerPage; ++word) {
            const auto found = load<std::uint64_t>(arena, page * kPage + word * sizeof word);
            different |= found ^ pattern_word(parameters_.seed, page, word);
        }
        if (different != 0) return corrupt(page_name(page * kPage) + " lost its pattern");
        return {};
    }

    Parameters parameters_;
    std::vector<std::uint64_t> counters_;  ///< by page
    std::vector<std::uint64_t> sums_;      ///< by vCPU
};

}  // namespace

std::unique_ptr<Verifier> make_touch_verifier(const Parameters& parameters)
{
    return std::make_unique<TouchVerifier>(parameters);
}

}  // namespace splitvisor::ring3
