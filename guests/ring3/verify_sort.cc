#include "guests/ring3/sort.h"
#include "guests/ring3/verify.h"

namespace splitvisor::ring3 {
namespace {

/// Two multisets of random keys with equal fingerprints are equal, but for a chance of about 2^-64.
struct Fingerprint {
    std::uint64_t sum = 0;
    std::uint64_t mixed_sum = 0;

    void add(std::uint64_t key)
    {
        sum += key;
        mixed_sum += mix(key ^ 0x5bd1e995);
    }
    bool operator==(const Fingerprint&) const = default;
};

class SortVerifier final : public Verifier {
  public:
    explicit SortVerifier(const Parameters& parameters) : parameters_{parameters}
    {
        for (std::uint64_t i = 0; i < key_count(parameters); ++i) {
            const auto key = key_at(parameters, i);
            keys_.add(key);
            if (key < kMiddleKey) ++below_middle_;
        }
    }

    Status check(std::span<const Outcome> outcomes, std::span<const std::byte> arena) const override
    {
        std::uint64_t sorted = 0;
        for (const auto& outcome : outcomes) sorted += outcome.operations;
        if (sorted != key_count(parameters_)) return corrupt("the vCPUs left out keys");
        SPLITVISOR_TRY(check_head(arena));
        return check_keys(arena);
    }

  private:
    [[nodiscard]] Status check_head(std::span<const std::byte> arena) const
    {
        const SortHead expected{parameters_.vcpus == 1 ? 0 : below_middle_};
        SPLITVISOR_TRY(expect_same(arena, 0, &expected, sizeof expected, "the dividing line"));
        return expect_zeros(arena.first(kPage), sizeof expected);
    }

    [[nodiscard]] Status check_keys(std::span<const std::byte> arena) const
    {
        Fingerprint found;
        std::uint64_t last = 0;
        for (auto offset = kPage; offset < arena.size(); offset += sizeof last) {
            const auto key = load<std::uint64_t>(arena, offset);
            if (key < last) return corrupt("keys are out of order at " + page_name(offset));
            found.add(key);
            last = key;
        }
        if (found != keys_) return corrupt("the sorted keys are not those that were to be sorted");
        return {};
    }

    Parameters parameters_;
    Fingerprint keys_;
    std::uint64_t below_middle_ = 0;
};

}  // namespace

std::unique_ptr<Verifier> make_sort_verifier(const Parameters& parameters)
{
    return std::make_unique<SortVerifier>(parameters);
}

}  // namespace splitvisor::ring3
