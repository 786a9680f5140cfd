#include "guests/ring3/key_value.h"

#include "guests/ring3/task.h"

namespace splitvisor::ring3 {
namespace {

class RecordTable {
  public:
    RecordTable(const Task& task, std::uint32_t table)
        : shape_{table_shape(task.parameters, table)},
          records_{reinterpret_cast<Record*>(task.arena) + shape_.first},
          seed_{task.parameters.seed},
          table_{table}
    {
    }

    /// Part by part of the table, so that filling it does not jump about in memory.
    void fill()
    {
        for (std::uint64_t part = 0; part < kFillParts; ++part) {
            const auto first = shape_.records * part / kFillParts;
            const auto end = shape_.records * (part + 1) / kFillParts;
            for (std::uint64_t key = 1; key <= shape_.keys; ++key) {
                const auto home = home_record(shape_, key);
                if (home >= first && home < end) add(key);
            }
        }
    }

    bool put(std::uint64_t key)
    {
        auto* const record = find(key);
        if (record == nullptr || record->key != key) return false;
        write_value(*record, record->version + 1);
        return true;
    }

    /// Checks the whole value against its version. Adds the version to `sum`.
    bool get(std::uint64_t key, std::uint64_t& sum) const
    {
        const auto* const record = find(key);
        if (record == nullptr || record->key != key) return false;
        const auto from = value_seed(seed_, table_, key, record->version);
        std::uint64_t different = 0;
        for (std::uint64_t i = 0; i < kValueWords; ++i) different |= record->value[i] ^ value_word(from, i);
        sum += record->version;
        return different == 0;
    }

  private:
    static constexpr std::uint64_t kFillParts = 64;

    void add(std::uint64_t key)
    {
        auto& record = *find(key);
        record.key = key;
        write_value(record, 1);
    }

    /// The record of the key or the free one where it belongs; null where a damaged table has neither.
    Record* find(std::uint64_t key) const
    {
        auto at = home_record(shape_, key);
        for (std::uint64_t i = 0; i < shape_.records; ++i) {
            if (records_[at].key == key || records_[at].key == 0) return records_ + at;
            at = at + 1 == shape_.records ? 0 : at + 1;
        }
        return nullptr;
    }

    void write_value(Record& record, std::uint64_t version) const
    {
        record.version = version;
        const auto from = value_seed(seed_, table_, record.key, version);
        for (std::uint64_t i = 0; i < kValueWords; ++i) record.value[i] = value_word(from, i);
    }

    TableShape shape_;
    Record* records_;
    std::uint64_t seed_;
    std::uint32_t table_;
};

}  // namespace

void run_key_value(const Task& task)
{
    const auto& parameters = task.parameters;
    RecordTable own{task, task.vcpu};
    RecordTable shared{task, table_count(parameters) - 1};
    own.fill();
    if (task.vcpu == 0 && parameters.vcpus > 1) shared.fill();
    task.meet(Step::kPrepared);

    std::uint64_t sum = 0;
    std::uint64_t errors = 0;
    for (std::uint64_t i = 0; i < parameters.operations; ++i) {
        const auto operation = operation_at(parameters, task.vcpu, i);
        auto& table = operation.table == task.vcpu ? own : shared;
        const bool good = operation.put ? table.put(operation.key) : table.get(operation.key, sum);
        errors += good ? 0 : 1;
    }
    task.outcome.checksum = sum;
    task.outcome.errors = errors;
    task.outcome.operations = parameters.operations;
    task.meet(Step::kWorked);
}

}  // namespace splitvisor::ring3
