#include <vector>

#include "base/crc32c.h"
#include "base/mapping.h"
#include "guests/ring3/native_run.h"
#include "guests/ring3/train.h"
#include "guests/ring3/verify.h"

namespace splitvisor::ring3 {
namespace {

/// Trains in this process, with the same code, and expects the same bits everywhere.
class TrainVerifier final : public Verifier {
  public:
    TrainVerifier(const Parameters& parameters, std::vector<Outcome> outcomes, std::span<const std::byte> arena)
        : parameters_{parameters}, outcomes_{std::move(outcomes)}, model_{load<Model>(arena)}
    {
        for (std::uint64_t offset = 0; offset < arena.size(); offset += kPage) {
            page_sums_.push_back(crc32c(arena.subspan(offset, kPage)));
        }
    }

    /// A training that learns nothing would agree with itself as well.
    [[nodiscard]] bool has_learnt() const { return model_.last_loss < 0.8f * model_.first_loss; }

    Status check(std::span<const Outcome> outcomes, std::span<const std::byte> arena) const override
    {
        for (std::uint32_t vcpu = 0; vcpu < parameters_.vcpus; ++vcpu) {
            if (outcomes[vcpu].operations != outcomes_[vcpu].operations) return corrupt("a vCPU left out samples");
        }
        SPLITVISOR_TRY(expect_same(arena, 0, &model_, sizeof model_, "the trained network"));
        for (std::uint64_t page = 0; page < page_sums_.size(); ++page) {
            if (crc32c(arena.subspan(page * kPage, kPage)) != page_sums_[page]) {
                return corrupt(page_name(page * kPage) + " differs from that of the same training in the host");
            }
        }
        return {};
    }

  private:
    Parameters parameters_;
    std::vector<Outcome> outcomes_;
    Model model_;
    std::vector<std::uint32_t> page_sums_;
};

}  // namespace

Result<std::unique_ptr<Verifier>> make_train_verifier(const Parameters& parameters)
{
    auto memory = Mapping::anonymous(ByteCount{parameters.arena_bytes});
    if (!memory) return memory.error();
    auto outcomes = run_natively(parameters, memory->bytes());
    auto verifier = std::make_unique<TrainVerifier>(parameters, std::move(outcomes), memory->bytes());
    if (!verifier->has_learnt()) {
        return Error{ErrorCode::kInvalid, "the training does not learn with this much memory; use more"};
    }
    return std::unique_ptr<Verifier>{std::move(verifier)};
}

}  // namespace splitvisor::ring3
