#include "tools/aggregator/process_info.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "http/server.h"

namespace dpa {
namespace {

// Rings, listeners, plugin pipes and sockets, log, snapshots: what is open beside connections, generously; and those
// that are being turned away, who must not take much where there is little.
uint64_t FilesReserved(uint64_t files, uint32_t workers_count) {
  return 256 + std::min<uint64_t>(uint64_t{workers_count} * HttpServer::kSheddingMax, files / 8);
}

const double g_started_seconds =
    std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();

}  // namespace

uint64_t RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  rlimit raised{limit.rlim_max, limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return raised.rlim_cur;
  return limit.rlim_cur;
}

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

uint64_t ConnectionsForFiles(uint64_t files, uint32_t workers_count) {
  const uint64_t reserved = FilesReserved(files, workers_count);
  return std::max<uint64_t>(files > reserved ? (files - reserved) / 2 : 0, 16);
}

uint64_t FilesForConnections(uint64_t connections, uint32_t workers_count) {
  return connections * 2 + FilesReserved(UINT64_MAX, workers_count);
}

void CollectProcess(MetricsPage& page) {
  uint64_t size_pages = 0;
  uint64_t resident_pages = 0;
  if (std::ifstream file("/proc/self/statm"); file >> size_pages >> resident_pages) {
    const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
    page.AddGauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", {},
                  static_cast<double>(size_pages) * page_bytes);
    page.AddGauge("process_resident_memory_bytes", "Resident memory size in bytes.", {},
                  static_cast<double>(resident_pages) * page_bytes);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  page.AddCounter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", {},
                  seconds(usage.ru_utime) + seconds(usage.ru_stime));
  page.AddGauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", {},
                g_started_seconds);
  std::error_code error;
  const auto files = std::filesystem::directory_iterator("/proc/self/fd", error);
  if (!error) {
    page.AddGauge("process_open_fds", "Number of open file descriptors.", {},
                  static_cast<double>(std::distance(begin(files), end(files))));
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  page.AddGauge("process_max_fds", "Maximum number of open file descriptors.", {}, static_cast<double>(limit.rlim_cur));
}

}  // namespace dpa
