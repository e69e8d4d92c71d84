#include "core/assert.h"

#include <cstdio>
#include <cstdlib>

namespace dpa {

void AssertFailed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "assertion_failed expression=\"%s\" at=%s:%d\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace dpa
