#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

// The kernel's structures that end in a flexible array have another size in C++ than in C with the headers of
// Linux 6.1 (an empty structure takes a byte), and with the size the ioctl numbers change too: here are both as in C.
namespace splitvisor::vcpu {

template <typename Element, typename Head>
struct KvmList {
    /// A list with room for `capacity` elements, to be filled by the kernel.
    explicit KvmList(std::uint32_t capacity) : bytes_(sizeof(Head) + capacity * sizeof(Element))
    {
        set_count(capacity);
    }
    /// A list that hands `elements` to the kernel.
    explicit KvmList(std::span<const Element> elements) : KvmList{static_cast<std::uint32_t>(elements.size())}
    {
        if (!elements.empty()) std::memcpy(bytes_.data() + sizeof(Head), elements.data(), elements.size_bytes());
    }

    [[nodiscard]] std::byte* data() { return bytes_.data(); }
    [[nodiscard]] std::vector<Element> elements() const
    {
        std::uint32_t count = 0;
        std::memcpy(&count, bytes_.data(), sizeof count);
        const auto room = (bytes_.size() - sizeof(Head)) / sizeof(Element);
        std::vector<Element> list(std::min<std::size_t>(count, room));
        if (!list.empty()) std::memcpy(list.data(), bytes_.data() + sizeof(Head), list.size() * sizeof(Element));
        return list;
    }

  private:
    void set_count(std::uint32_t count) { std::memcpy(bytes_.data(), &count, sizeof count); }
    std::vector<std::byte> bytes_;
};

struct CpuidHead {
    std::uint32_t count;
    std::uint32_t padding;
};
struct MsrHead {
    std::uint32_t count;
    std::uint32_t padding;
};
struct MsrIndexHead {
    std::uint32_t count;
};
static_assert(sizeof(kvm_cpuid_entry2) == 40 && sizeof(kvm_msr_entry) == 16);

using CpuidList = KvmList<kvm_cpuid_entry2, CpuidHead>;
using MsrList = KvmList<kvm_msr_entry, MsrHead>;
using MsrIndexList = KvmList<std::uint32_t, MsrIndexHead>;

inline constexpr unsigned long kKvmGetMsrIndexList = _IOWR(KVMIO, 0x02, MsrIndexHead);
inline constexpr unsigned long kKvmGetSupportedCpuid = _IOWR(KVMIO, 0x05, CpuidHead);
inline constexpr unsigned long kKvmSetMsrs = _IOW(KVMIO, 0x89, MsrHead);
inline constexpr unsigned long kKvmSetCpuid2 = _IOW(KVMIO, 0x90, CpuidHead);

}  // namespace splitvisor::vcpu
