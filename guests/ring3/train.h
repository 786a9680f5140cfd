#pragma once

#include "guests/ring3/abi.h"
#include "guests/ring3/arithmetic.h"

// Training: a network with one hidden layer (ReLU) and one output learns a function of its inputs by mini-batch gradient
// descent; the batches are visited in another order in each epoch. With two vCPUs each trains a copy on its own half of
// the samples, and the copies are averaged after each epoch. The result is exact to the bit: no fused multiply-add, no
// reordered sums. Arena: one Model a vCPU, then the samples.
namespace splitvisor::ring3 {

inline constexpr std::uint64_t kInputs = 63;
inline constexpr std::uint64_t kHidden = 32;
inline constexpr std::uint64_t kBatch = 256;  ///< samples: 64 KiB

struct Sample {
    float inputs[kInputs];
    float label;
};
static_assert(sizeof(Sample) == 256);

struct Weights {
    float hidden[kInputs][kHidden];
    float output[kHidden];
};

/// Whole pages.
struct Model {
    Weights weights;
    float first_loss;  ///< mean squared error over the first epoch
    float last_loss;   ///< and over the last one
    std::byte padding[3 * kPage - sizeof(Weights) - 2 * sizeof(float)];
};
static_assert(sizeof(Model) == 3 * kPage);

constexpr std::uint64_t samples_offset(const Parameters& parameters) { return parameters.vcpus * sizeof(Model); }

/// Batches of each vCPU.
constexpr std::uint64_t batch_count(const Parameters& parameters)
{
    return (parameters.arena_bytes - samples_offset(parameters)) / (kBatch * sizeof(Sample)) / parameters.vcpus;
}

}  // namespace splitvisor::ring3
