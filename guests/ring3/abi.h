#pragma once

#include <cstddef>
#include <cstdint>

// What the ring-3 guest and its host agree on. Compiled into both, freestanding.
namespace splitvisor::ring3 {

/// Guest memory, virtual = physical. Everything the guest uses lies in guest RAM, its page tables too.
inline constexpr std::uint64_t kPageTables = 0x1000;  ///< PML4, PDPT, then one page directory a GiB
inline constexpr std::uint64_t kParameters = 0x8000;
inline constexpr std::uint64_t kOutcomes = 0x9000;  ///< one page a vCPU
inline constexpr std::uint64_t kStacks = 0x20000;   ///< one stack of kStackBytes a vCPU, growing down
inline constexpr std::uint64_t kStackBytes = 0x10000;
inline constexpr std::uint64_t kImage = 0x100000;  ///< entry point and code; guest.ld repeats this number
inline constexpr std::uint64_t kArena = 0x200000;  ///< to the end of RAM

inline constexpr std::uint32_t kMaxVcpus = 2;
inline constexpr std::uint64_t kMaxMemory = 3ull << 30;  ///< RAM has a hole above
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kWordsPerPage = kPage / sizeof(std::uint64_t);

/// The guest writes one 32-bit Step to this port when it arrives there and goes on when all vCPUs have arrived.
inline constexpr std::uint16_t kMeetingPort = 0x10;
/// A write to this port ends the vCPU's work.
inline constexpr std::uint16_t kDonePort = 0x12;

enum class Step : std::uint32_t {
    kWithin = 0,    ///< somewhere inside the preparation or the work
    kPrepared = 1,  ///< the arena is filled: the clock starts
    kWorked = 2,    ///< the clock stops
};

enum class Program : std::uint32_t { kTouch, kWordCount, kKeyValue, kSort, kTrain };
enum class Order : std::uint32_t { kSequential, kRandom, kZipf };
enum class Access : std::uint32_t { kRead, kWrite };

struct Parameters {
    Program program = Program::kTouch;
    std::uint32_t vcpus = 1;             ///< 1 to kMaxVcpus
    Order order = Order::kSequential;    ///< kTouch only
    Access access = Access::kRead;       ///< kTouch only
    std::uint64_t arena_bytes = 0;       ///< whole pages
    std::uint64_t seed = 0;
    std::uint64_t operations = 0;        ///< of each vCPU: touches, gets and puts, epochs; others ignore it
};

/// What one vCPU says about its work.
struct Outcome {
    std::uint64_t checksum = 0;    ///< what it means is the program's matter
    std::uint64_t operations = 0;  ///< touches, words, gets and puts, keys, samples
    std::uint64_t errors = 0;      ///< contents the guest itself found wrong
};

}  // namespace splitvisor::ring3
