// DPA_ASSERT states what the code relies on. It is on in every build, release included: a program that has lost its
// invariant must stop, not serve. Whatever a peer can cause is an Error (core/result.h), never an assertion.

#pragma once

namespace dpa {

[[noreturn]] void AssertFailed(const char* expression, const char* file, int line);

}  // namespace dpa

#define DPA_ASSERT(expression) \
  (__builtin_expect(static_cast<bool>(expression), 1) ? void(0) : ::dpa::AssertFailed(#expression, __FILE__, __LINE__))
