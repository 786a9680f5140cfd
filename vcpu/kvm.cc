#include "vcpu/kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include "vcpu/kvm_lists.h"

namespace splitvisor::vcpu {
namespace {

constexpr std::uint32_t kCpuidCapacity = 256;   // KVM_MAX_CPUID_ENTRIES
constexpr std::uint32_t kMsrCapacity = 4096;

}  // namespace

Result<System> System::open(const std::string& path)
{
    Fd fd{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
    if (!fd.valid()) {
        const auto error = Error::from_errno("cannot open " + path);
        if (error.code() == ErrorCode::kNotFound) {
            return Error{error.code(), error.message() + "; is the kvm_intel or kvm_amd module loaded?"};
        }
        if (error.code() == ErrorCode::kDenied) {
            return Error{error.code(), error.message() + "; is the user a member of the group kvm?"};
        }
        return error;
    }
    const int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        return Error{ErrorCode::kUnsupported,
                     path + ": KVM API version " + std::to_string(version) + ", wanted " + std::to_string(KVM_API_VERSION)};
    }
    const int run_bytes = ::ioctl(fd.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < 0) return Error::from_errno("KVM_GET_VCPU_MMAP_SIZE");
    return System{std::move(fd), static_cast<std::size_t>(run_bytes)};
}

int System::extension(unsigned capability) const
{
    const int answer = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability);
    return answer < 0 ? 0 : answer;
}

std::uint32_t System::max_vcpus() const
{
    // KVM_CAP_MAX_VCPUS absent means that KVM_CAP_NR_VCPUS counts, and neither means 4 (api.rst, KVM_CREATE_VCPU).
    if (const int most = extension(KVM_CAP_MAX_VCPUS); most > 0) return static_cast<std::uint32_t>(most);
    if (const int most = extension(KVM_CAP_NR_VCPUS); most > 0) return static_cast<std::uint32_t>(most);
    return 4;
}

Result<std::vector<kvm_cpuid_entry2>> System::supported_cpuid() const
{
    CpuidList list{kCpuidCapacity};
    if (::ioctl(fd_.get(), kKvmGetSupportedCpuid, list.data()) != 0) {
        return Error::from_errno("KVM_GET_SUPPORTED_CPUID");
    }
    return list.elements();
}

Result<std::vector<std::uint32_t>> System::msr_indices() const
{
    MsrIndexList list{kMsrCapacity};
    if (::ioctl(fd_.get(), kKvmGetMsrIndexList, list.data()) != 0) {
        return Error::from_errno("KVM_GET_MSR_INDEX_LIST");
    }
    return list.elements();
}

Result<Vm> System::create_vm() const
{
    int fd = -1;
    do {
        fd = ::ioctl(fd_.get(), KVM_CREATE_VM, 0);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return Error::from_errno("KVM_CREATE_VM");
    return Vm{Fd{fd}, run_bytes_};
}

Status Vm::set_fixed_pages(Gpa identity_map)
{
    std::uint64_t address = identity_map.value();
    if (::ioctl(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &address) != 0) {
        return Error::from_errno("KVM_SET_IDENTITY_MAP_ADDR");
    }
    if (::ioctl(fd_.get(), KVM_SET_TSS_ADDR, identity_map.value() + kPageBytes) != 0) {
        return Error::from_errno("KVM_SET_TSS_ADDR");
    }
    return {};
}

Status Vm::create_irqchip()
{
    if (::ioctl(fd_.get(), KVM_CREATE_IRQCHIP, 0) != 0) return Error::from_errno("KVM_CREATE_IRQCHIP");
    return {};
}

Status Vm::add_memory(std::uint32_t slot, Gpa start, std::span<std::byte> host)
{
    kvm_userspace_memory_region region{};
    region.slot = slot;
    region.guest_phys_addr = start.value();
    region.memory_size = host.size();
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(host.data());
    if (::ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
        return Error::from_errno("KVM_SET_USER_MEMORY_REGION");
    }
    return {};
}

Status Vm::attach_interrupt(const EventFd& event, std::uint32_t gsi)
{
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<std::uint32_t>(event.fd());
    irqfd.gsi = gsi;
    if (::ioctl(fd_.get(), KVM_IRQFD, &irqfd) != 0) return Error::from_errno("KVM_IRQFD");
    return {};
}

static Status change_doorbell(const Fd& vm, Gpa address, std::uint32_t value, const EventFd& event, std::uint32_t flags)
{
    kvm_ioeventfd doorbell{};
    doorbell.datamatch = value;
    doorbell.addr = address.value();
    doorbell.len = sizeof value;
    doorbell.fd = event.fd();
    doorbell.flags = KVM_IOEVENTFD_FLAG_DATAMATCH | flags;
    if (::ioctl(vm.get(), KVM_IOEVENTFD, &doorbell) != 0) return Error::from_errno("KVM_IOEVENTFD");
    return {};
}

Status Vm::add_doorbell(Gpa address, std::uint32_t value, const EventFd& event)
{
    return change_doorbell(fd_, address, value, event, 0);
}

Status Vm::remove_doorbell(Gpa address, std::uint32_t value, const EventFd& event)
{
    return change_doorbell(fd_, address, value, event, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

}  // namespace splitvisor::vcpu
