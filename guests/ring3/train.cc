#include "guests/ring3/train.h"

#include "guests/ring3/task.h"

namespace splitvisor::ring3 {
namespace {

constexpr float kRate = 0.02f;

/// In [-1, 1), exact: 24 bits fit a float.
float unit_float(std::uint64_t bits)
{
    return static_cast<float>(static_cast<std::int32_t>(bits & 0xffffff) - 0x800000) * (1.0f / 0x800000);
}

void fill_sample(std::uint64_t seed, std::uint64_t index, Sample& sample)
{
    for (std::uint64_t i = 0; i < kInputs; i += 2) {
        const auto random = random_at(seed, index * kInputs + i);
        sample.inputs[i] = unit_float(random);
        if (i + 1 < kInputs) sample.inputs[i + 1] = unit_float(random >> 32);
    }
    // What is to be learnt: linear in some inputs, bent in one.
    const auto* const x = sample.inputs;
    const float bent = x[3] < 0 ? -x[3] : x[3];
    sample.label = 0.5f * x[0] - 0.25f * x[1] + 0.125f * x[2] + bent;
}

void start_weights(std::uint64_t seed, Weights& weights)
{
    for (std::uint64_t i = 0; i < kInputs; ++i) {
        for (std::uint64_t j = 0; j < kHidden; ++j) {
            weights.hidden[i][j] = 0.2f * unit_float(random_at(seed ^ 0x77, i * kHidden + j));
        }
    }
    for (std::uint64_t j = 0; j < kHidden; ++j) weights.output[j] = 0.2f * unit_float(random_at(seed ^ 0x78, j));
}

/// Adds the gradient of one sample's squared error; returns that error.
float learn(const Weights& weights, const Sample& sample, Weights& gradient)
{
    float sums[kHidden] = {};
    for (std::uint64_t i = 0; i < kInputs; ++i) {
        for (std::uint64_t j = 0; j < kHidden; ++j) sums[j] += sample.inputs[i] * weights.hidden[i][j];
    }
    float answer = 0;
    for (std::uint64_t j = 0; j < kHidden; ++j) {
        if (sums[j] > 0) answer += sums[j] * weights.output[j];
    }
    const float error = answer - sample.label;
    float back[kHidden];
    for (std::uint64_t j = 0; j < kHidden; ++j) {
        const float active = sums[j] > 0 ? 1.0f : 0.0f;
        gradient.output[j] += error * sums[j] * active;
        back[j] = error * weights.output[j] * active;
    }
    for (std::uint64_t i = 0; i < kInputs; ++i) {
        for (std::uint64_t j = 0; j < kHidden; ++j) gradient.hidden[i][j] += sample.inputs[i] * back[j];
    }
    return error * error;
}

/// weights += factor * change. Both are arrays of floats through and through.
void add(Weights& weights, const Weights& change, float factor)
{
    auto* const to = weights.hidden[0];
    const auto* const from = change.hidden[0];
    for (std::uint64_t i = 0; i < kInputs * kHidden; ++i) to[i] += factor * from[i];
    for (std::uint64_t j = 0; j < kHidden; ++j) weights.output[j] += factor * change.output[j];
}

/// Returns the mean error.
float train_epoch(Weights& weights, const Sample* samples, std::uint64_t batches, std::uint64_t epoch)
{
    float total = 0;
    for (std::uint64_t i = 0; i < batches; ++i) {
        const auto* const batch = samples + scatter(i + epoch * 7919, batches) * kBatch;
        Weights gradient{};
        float loss = 0;
        for (std::uint64_t j = 0; j < kBatch; ++j) loss += learn(weights, batch[j], gradient);
        add(weights, gradient, -kRate / static_cast<float>(kBatch));
        total += loss / static_cast<float>(kBatch);
    }
    return total / static_cast<float>(batches);
}

/// Both copies become their mean.
void average(Model& a, Model& b)
{
    Weights mean{};
    add(mean, a.weights, 0.5f);
    add(mean, b.weights, 0.5f);
    a.weights = mean;
    b.weights = mean;
}

}  // namespace

void run_train(const Task& task)
{
    const auto& parameters = task.parameters;
    auto* const models = reinterpret_cast<Model*>(task.arena);
    auto& model = models[task.vcpu];
    const auto batches = batch_count(parameters);
    const auto first = task.vcpu * batches * kBatch;
    auto* const samples = reinterpret_cast<Sample*>(task.arena + samples_offset(parameters)) + first;
    for (std::uint64_t i = 0; i < batches * kBatch; ++i) fill_sample(parameters.seed, first + i, samples[i]);
    start_weights(parameters.seed, model.weights);
    task.meet(Step::kPrepared);

    for (std::uint64_t epoch = 0; epoch < parameters.operations; ++epoch) {
        const auto loss = train_epoch(model.weights, samples, batches, epoch);
        if (epoch == 0) model.first_loss = loss;
        model.last_loss = loss;
        task.meet(Step::kWithin);
        if (task.vcpu == 0 && parameters.vcpus == 2) average(models[0], models[1]);
        task.meet(Step::kWithin);
    }
    task.outcome.operations = parameters.operations * batches * kBatch;
    task.meet(Step::kWorked);
}

}  // namespace splitvisor::ring3
