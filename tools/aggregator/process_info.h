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
// and the connections that it is turning away need.
uint64_t ConnectionsForFiles(uint64_t files, uint32_t workers_count);
// The other way round: descriptors that so many connections may take.
uint64_t FilesForConnections(uint64_t connections, uint32_t workers_count);

// process_resident_memory_bytes and friends, from /proc/self.
void CollectProcess(MetricsPage& page);

}  // namespace dpa
