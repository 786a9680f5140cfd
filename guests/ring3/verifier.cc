#include "guests/ring3/verifier.h"

#include "base/log.h"
#include "guests/ring3/verify.h"

namespace splitvisor::ring3 {
namespace {

Result<std::unique_ptr<Verifier>> make(const Parameters& parameters)
{
    switch (parameters.program) {
    case Program::kTouch: return make_touch_verifier(parameters);
    case Program::kWordCount: return make_word_count_verifier(parameters);
    case Program::kKeyValue: return make_key_value_verifier(parameters);
    case Program::kSort: return make_sort_verifier(parameters);
    case Program::kTrain: return make_train_verifier(parameters);
    }
    return Error{ErrorCode::kInvalid, "unknown program"};
}

/// What is the same for all programs comes first.
class CheckedVerifier final : public Verifier {
  public:
    CheckedVerifier(const Parameters& parameters, std::unique_ptr<Verifier> program)
        : parameters_{parameters}, program_{std::move(program)}
    {
    }

    Status check(std::span<const Outcome> outcomes, std::span<const std::byte> arena) const override
    {
        SPLITVISOR_CHECK(arena.size() == parameters_.arena_bytes);
        if (outcomes.size() != parameters_.vcpus) return corrupt("not every vCPU has an outcome");
        for (const auto& outcome : outcomes) {
            if (outcome.errors != 0) {
                return corrupt("the guest itself found " + std::to_string(outcome.errors) + " wrong values");
            }
        }
        return program_->check(outcomes, arena);
    }

  private:
    Parameters parameters_;
    std::unique_ptr<Verifier> program_;
};

}  // namespace

Result<std::unique_ptr<Verifier>> Verifier::create(const Parameters& parameters)
{
    auto program = make(parameters);
    if (!program) return program.error();
    return std::unique_ptr<Verifier>{std::make_unique<CheckedVerifier>(parameters, std::move(*program))};
}

}  // namespace splitvisor::ring3
