#include <vector>

#include "guests/ring3/key_value.h"
#include "guests/ring3/verify.h"

namespace splitvisor::ring3 {
namespace {

/// Plays the operations on bare version numbers, without hashing or values.
class KeyValueVerifier final : public Verifier {
  public:
    explicit KeyValueVerifier(const Parameters& parameters) : parameters_{parameters}, sums_(parameters.vcpus)
    {
        for (std::uint32_t table = 0; table < table_count(parameters); ++table) {
            versions_.emplace_back(table_shape(parameters, table).keys + 1, 1);
        }
        for (std::uint32_t vcpu = 0; vcpu < parameters.vcpus; ++vcpu) play(vcpu);
    }

    Status check(std::span<const Outcome> outcomes, std::span<const std::byte> arena) const override
    {
        for (std::uint32_t vcpu = 0; vcpu < parameters_.vcpus; ++vcpu) {
            if (outcomes[vcpu].operations != parameters_.operations) return corrupt("a vCPU left out operations");
            if (outcomes[vcpu].checksum != sums_[vcpu]) {
                return corrupt("vCPU " + std::to_string(vcpu) + " has got wrong versions");
            }
        }
        std::uint64_t end = 0;
        for (std::uint32_t table = 0; table < table_count(parameters_); ++table) {
            SPLITVISOR_TRY(check_table(arena, table));
            const auto shape = table_shape(parameters_, table);
            end = (shape.first + shape.records) * sizeof(Record);
        }
        return expect_zeros(arena, end);
    }

  private:
    void play(std::uint32_t vcpu)
    {
        for (std::uint64_t i = 0; i < parameters_.operations; ++i) {
            const auto operation = operation_at(parameters_, vcpu, i);
            auto& version = versions_[operation.table][operation.key];
            if (operation.put) {
                ++version;
            } else {
                sums_[vcpu] += version;
            }
        }
    }

    /// Each key has one record, where a search for it ends, with the right version and value; every other byte is zero.
    [[nodiscard]] Status check_table(std::span<const std::byte> arena, std::uint32_t table) const
    {
        const auto shape = table_shape(parameters_, table);
        std::vector<bool> seen(shape.keys + 1);
        std::uint64_t found = 0;
        for (std::uint64_t i = 0; i < shape.records; ++i) {
            const auto offset = (shape.first + i) * sizeof(Record);
            const auto record = load<Record>(arena, offset);
            const auto wrong = [&](const char* what) { return corrupt(std::string{what} + " at " + page_name(offset)); };
            if (record.key > shape.keys) return wrong("an unknown key");
            if (!same_as_expected(record, table)) return wrong("a wrong version or value");
            if (record.key == 0) continue;
            if (seen[record.key]) return wrong("a key that exists twice");
            if (!is_reachable(arena, shape, i, record.key)) return wrong("a record that no search finds");
            seen[record.key] = true;
            ++found;
        }
        if (found != shape.keys) return corrupt("keys are missing");
        return {};
    }

    /// No record is free between where the search for the key begins and `index`.
    static bool is_reachable(std::span<const std::byte> arena, const TableShape& shape, std::uint64_t index,
                             std::uint64_t key)
    {
        for (auto at = home_record(shape, key); at != index; at = (at + 1) % shape.records) {
            if (load<std::uint64_t>(arena, (shape.first + at) * sizeof(Record)) == 0) return false;
        }
        return true;
    }

    [[nodiscard]] bool same_as_expected(const Record& record, std::uint32_t table) const
    {
        Record expected{};
        if (record.key != 0) {
            expected.key = record.key;
            expected.version = versions_[table][record.key];
            const auto from = value_seed(parameters_.seed, table, expected.key, expected.version);
            for (std::uint64_t i = 0; i < kValueWords; ++i) expected.value[i] = value_word(from, i);
        }
        return std::memcmp(&expected, &record, sizeof record) == 0;
    }

    Parameters parameters_;
    std::vector<std::vector<std::uint64_t>> versions_;  ///< by table and key
    std::vector<std::uint64_t> sums_;                   ///< by vCPU
};

}  // namespace

std::unique_ptr<Verifier> make_key_value_verifier(const Parameters& parameters)
{
    return std::make_unique<KeyValueVerifier>(parameters);
}

}  // namespace splitvisor::ring3
