#pragma once

#include "guests/ring3/abi.h"
#include "guests/ring3/arithmetic.h"

// Key-value mix: nine gets to one put on records in an open hash table, keys in Zipf's frequencies. Each vCPU has a table
// of its own; with several vCPUs there is one more, which all of them read.
namespace splitvisor::ring3 {

inline constexpr std::uint64_t kValueWords = 30;
inline constexpr std::uint64_t kPutEvery = 10;  ///< one in so many operations is a put, the others are gets

struct Record {
    std::uint64_t key;  ///< 0: the record is free
    std::uint64_t version;
    std::uint64_t value[kValueWords];
};
static_assert(sizeof(Record) == 256);

struct TableShape {
    std::uint64_t first;    ///< index of its first record in the arena
    std::uint64_t records;  ///< its capacity
    std::uint64_t keys;     ///< it holds the keys 1 to this number
};

constexpr std::uint32_t table_count(const Parameters& parameters)
{
    return parameters.vcpus == 1 ? 1 : parameters.vcpus + 1;
}

/// The shared table is the last one.
constexpr TableShape table_shape(const Parameters& parameters, std::uint32_t table)
{
    const auto records = parameters.arena_bytes / sizeof(Record) / table_count(parameters);
    return {records * table, records, records * 4 / 5};
}

constexpr std::uint64_t home_record(const TableShape& shape, std::uint64_t key)
{
    return below(mix(key * 0x9e3779b97f4a7c15), shape.records);
}

/// Where an entry of a value comes from.
constexpr std::uint64_t value_seed(std::uint64_t seed, std::uint32_t table, std::uint64_t key, std::uint64_t version)
{
    return mix(seed + mix(key + (std::uint64_t{table} << 56)) + version);
}
constexpr std::uint64_t value_word(std::uint64_t value_seed, std::uint64_t word) { return value_seed * (2 * word + 1) + word; }

struct Operation {
    std::uint32_t table;
    std::uint64_t key;
    bool put;
};

/// What one vCPU's operation number `index` does: every fourth goes to the shared table where there is one.
constexpr Operation operation_at(const Parameters& parameters, std::uint32_t vcpu, std::uint64_t index)
{
    const auto random = random_at(parameters.seed ^ (0x6b6579 + vcpu), index);
    const bool shared = parameters.vcpus > 1 && index % 4 == 3;
    const auto table = shared ? parameters.vcpus : vcpu;
    const auto key = 1 + zipf_rank(random, table_shape(parameters, table).keys);
    return {table, key, !shared && below(mix(random + 1), kPutEvery) == 0};
}

}  // namespace splitvisor::ring3
