#pragma once

#include "guests/ring3/abi.h"

// The programs. They run in the guest and, compiled from the same sources with the same flags, in the host.
namespace splitvisor::ring3 {

/// How vCPUs wait for each other: in the guest a port write, in the host a barrier.
struct Meeting {
    void (*meet)(void* self, Step step) = nullptr;
    void* self = nullptr;
};

/// One vCPU's share of a program. All vCPUs have the same parameters and arena. The arena is all zero at the start.
struct Task {
    const Parameters& parameters;
    std::byte* arena;
    std::uint32_t vcpu;
    Outcome& outcome;
    Meeting meeting;

    /// Returns when every vCPU is here; what they wrote before is visible then.
    void meet(Step step) const { meeting.meet(meeting.self, step); }
};

/// Fills the arena, meets at kPrepared, works, meets at kWorked.
void run_program(const Task& task);

void run_touch(const Task& task);
void run_word_count(const Task& task);
void run_key_value(const Task& task);
void run_sort(const Task& task);
void run_train(const Task& task);

}  // namespace splitvisor::ring3
