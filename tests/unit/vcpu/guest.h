#pragma once

#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include "base/mapping.h"
#include "vcpu/cpuid.h"
#include "vcpu/entry_state.h"
#include "vcpu/kvm.h"
#include "vcpu/vcpu.h"

namespace splitvisor::vcpu::test {

/// True where a KVM can be opened; the tests that need one are skipped elsewhere, and Boost says so.
struct WithKvm {
    boost::test_tools::assertion_result operator()(boost::unit_test::test_unit_id) const
    {
        const auto system = System::open();
        boost::test_tools::assertion_result answer{system.ok()};
        if (!system) answer.message() << system.error().message();
        return answer;
    }
};

/// A 2 MiB machine in long mode, the lower 4 GiB mapped one to one, with a few bytes of code at 0x10000.
class TinyGuest {
  public:
    static constexpr Gpa kCode{0x10000};
    static constexpr std::size_t kRamBytes = 2 << 20;

    explicit TinyGuest(const std::vector<std::uint8_t>& code, std::uint32_t vcpus = 1, bool in_kernel_irqchip = false)
        : system_{take(System::open())}, vm_{take(system_.create_vm())}, ram_{take(Mapping::anonymous(ByteCount{kRamBytes}))}
    {
        if (in_kernel_irqchip) {
            check(vm_.set_fixed_pages(Gpa{0xfffbc000}));
            check(vm_.create_irqchip());
        }
        check(vm_.add_memory(0, Gpa{0}, ram_.bytes()));
        build_page_tables();
        std::memcpy(ram_.data() + kCode.value(), code.data(), code.size());
        for (std::uint32_t id = 0; id < vcpus; ++id) vcpus_.push_back(make_vcpu(VcpuId{id}, vcpus));
    }

    Vcpu& vcpu(std::size_t index = 0) { return vcpus_[index]; }
    std::vector<Vcpu> take_vcpus() { return std::move(vcpus_); }
    Vm& vm() { return vm_; }
    std::byte* ram() { return ram_.data(); }

    template <typename T>
    static T take(Result<T> result)
    {
        if (!result) BOOST_FAIL(result.error().message());
        return std::move(result).value();
    }
    static void check(const Status& status)
    {
        if (!status) BOOST_FAIL(status.error().message());
    }

  private:
    void build_page_tables()
    {
        const auto put = [&](std::uint64_t table, std::uint64_t index, std::uint64_t entry) {
            std::memcpy(ram_.data() + table + index * 8, &entry, 8);
        };
        put(0x1000, 0, 0x2000 | 7);
        for (std::uint64_t gib = 0; gib < 4; ++gib) {
            put(0x2000, gib, (0x3000 + gib * 0x1000) | 7);
            for (std::uint64_t i = 0; i < 512; ++i) put(0x3000 + gib * 0x1000, i, (gib << 30) | (i << 21) | 0xe7);
        }
    }

    Vcpu make_vcpu(VcpuId id, std::uint32_t vcpus)
    {
        auto vcpu = take(Vcpu::create(vm_, id));
        check(vcpu.set_cpuid(make_cpuid(take(system_.supported_cpuid()), id, {vcpus, false})));
        EntryState entry;
        entry.instruction = kCode.value();
        entry.stack = 0x20000;
        entry.page_tables = Gpa{0x1000};
        check(enter_at(vcpu, entry));
        return vcpu;
    }

    System system_;
    Vm vm_;
    Mapping ram_;
    std::vector<Vcpu> vcpus_;
};

/// Writes down each access and answers reads with bytes 0xa0, 0xa1, ... Stops at a write to port 0xf4.
class Recorder final : public ExitHandler {
  public:
    Next port_read(std::uint16_t port, std::span<std::byte> into) override
    {
        return note("in", port, into, true);
    }
    Next port_write(std::uint16_t port, std::span<const std::byte> from) override
    {
        return note("out", port, from, false);
    }
    Next mmio_read(Gpa address, std::span<std::byte> into) override { return note("load", address.value(), into, true); }
    Next mmio_write(Gpa address, std::span<const std::byte> from) override
    {
        return note("store", address.value(), from, false);
    }

    std::vector<std::string> events()
    {
        const std::lock_guard lock{mutex_};
        return events_;
    }

  private:
    template <typename Byte>
    Next note(const char* what, std::uint64_t where, std::span<Byte> bytes, bool fill)
    {
        std::string text = what;
        char part[32];
        std::snprintf(part, sizeof part, " %llx", static_cast<unsigned long long>(where));
        text += part;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            if constexpr (!std::is_const_v<Byte>) {
                if (fill) bytes[i] = static_cast<std::byte>(0xa0 + i);
            }
            std::snprintf(part, sizeof part, " %02x", static_cast<unsigned>(bytes[i]));
            text += part;
        }
        const std::lock_guard lock{mutex_};
        events_.push_back(text);
        return where == 0xf4 ? Next::kStop : Next::kContinue;
    }

    std::mutex mutex_;
    std::vector<std::string> events_;
};

}  // namespace splitvisor::vcpu::test
