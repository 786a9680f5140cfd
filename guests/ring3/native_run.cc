#include "guests/ring3/native_run.h"

#include <barrier>
#include <string>

#include "base/log.h"
#include "base/thread.h"
#include "guests/ring3/task.h"

namespace splitvisor::ring3 {

std::vector<Outcome> run_natively(const Parameters& parameters, std::span<std::byte> arena)
{
    SPLITVISOR_CHECK(arena.size() == parameters.arena_bytes);
    std::vector<Outcome> outcomes(parameters.vcpus);
    std::barrier barrier{static_cast<std::ptrdiff_t>(parameters.vcpus)};
    const Meeting meeting{[](void* self, Step) { static_cast<std::barrier<>*>(self)->arrive_and_wait(); }, &barrier};
    std::vector<Thread> threads;
    for (std::uint32_t vcpu = 0; vcpu < parameters.vcpus; ++vcpu) {
        threads.emplace_back("native-" + std::to_string(vcpu), [&, vcpu] {
            run_program(Task{parameters, arena.data(), vcpu, outcomes[vcpu], meeting});
        });
    }
    threads.clear();
    return outcomes;
}

}  // namespace splitvisor::ring3
