// What the program says about its own process: limits at start, and the process_* metrics that every exporter has.

#pragma once

#include <cstdint>
#include <vector>

#include "core/metrics.h"

namespace dpa {

// Raises the soft limit of open files to the hard one. Returns the limit in force.
uint64_t RaiseFileLimit();
// CPUs that this process may run on, ascending.
std::vector<int> AllowedCpus();
// Client connections that `files` descriptors carry: two descriptors a proxied request, less what the program itself
// needs.
uint64_t ConnectionsForFiles(uint64_t files);

// process_resident_memory_bytes and friends, from /proc/self.
void CollectProcess(MetricsPage& page);

}  // namespace dpa
