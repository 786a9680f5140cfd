#include <cstddef>

// The functions that GCC may call without being asked to (GCC manual, -ffreestanding).
extern "C" {

void* memcpy(void* to, const void* from, std::size_t count)
{
    auto* into = to;
    asm volatile("rep movsb" : "+D"(into), "+S"(from), "+c"(count) : : "memory");
    return to;
}

void* memset(void* to, int value, std::size_t count)
{
    auto* into = to;
    asm volatile("rep stosb" : "+D"(into), "+c"(count) : "a"(value) : "memory");
    return to;
}

void* memmove(void* to, const void* from, std::size_t count)
{
    auto* into = static_cast<char*>(to);
    const auto* source = static_cast<const char*>(from);
    if (into <= source) return memcpy(to, from, count);
    while (count-- > 0) {
        into[count] = source[count];
        asm volatile("" : : : "memory");  // or GCC makes a call of memmove of this loop
    }
    return to;
}

int memcmp(const void* a, const void* b, std::size_t count)
{
    const auto* left = static_cast<const unsigned char*>(a);
    const auto* right = static_cast<const unsigned char*>(b);
    for (std::size_t i = 0; i < count; ++i) {
        if (left[i] != right[i]) return left[i] - right[i];
    }
    return 0;
}
}
