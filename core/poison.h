// Poison marks memory that a pool holds as not to be touched, so that AddressSanitizer reports a view that outlived its
// lease.
// Nothing in other builds.

#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define DPA_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DPA_POISON 1
#endif
#endif

#ifdef DPA_POISON
#include <sanitizer/asan_interface.h>
#endif

namespace dpa {

inline void Poison([[maybe_unused]] const void* memory, [[maybe_unused]] size_t bytes) {
#ifdef DPA_POISON
  __asan_poison_memory_region(memory, bytes);
#endif
}

inline void Unpoison([[maybe_unused]] const void* memory, [[maybe_unused]] size_t bytes) {
#ifdef DPA_POISON
  __asan_unpoison_memory_region(memory, bytes);
#endif
}

}  // namespace dpa
