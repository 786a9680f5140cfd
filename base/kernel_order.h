#pragma once

// What one thread hands to the kernel and another takes back from it is in order, but ThreadSanitizer cannot see the
// kernel's part. These say it; in other builds they are nothing.

#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace splitvisor {

/// Before the system call by which the kernel learns of `object`.
inline void handed_to_kernel([[maybe_unused]] void* object)
{
#if defined(__SANITIZE_THREAD__)
    __tsan_release(object);
#endif
}

/// After the kernel said that it is done with `object`: whatever was done before handed_to_kernel() has happened.
inline void taken_from_kernel([[maybe_unused]] void* object)
{
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(object);
#endif
}

}  // namespace splitvisor
