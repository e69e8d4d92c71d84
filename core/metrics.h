// Metrics: plain counters written by one thread and read by the scrape, and the page that a scrape collects them on.
//
// One struct of counters per class and worker; nothing is shared between writers, so counting is an ordinary add. At a
// scrape every collector writes its families to a MetricsPage, which adds up what has the same name and labels (the
// workers) and prints Prometheus text.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/assert.h"

namespace dpa {

// Only grows. Written by one thread.
class Counter {
 public:
  void Add(uint64_t count = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Goes up and down. Written by one thread.
class Gauge {
 public:
  void Set(int64_t value) { value_.store(value, std::memory_order_relaxed); }
  void Add(int64_t count) { Set(value() + count); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// Seconds, in the bounds that Grafana and Kubernetes dashboards know; the last bucket is +Inf.
inline constexpr std::array<double, 14> kDurationBoundsSeconds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                                  0.1,    0.25,  0.5,    1,     2.5,  5,     10};
inline constexpr std::array<double, 11> kSizeBoundsBytes = {128,   256,   512,    1024,    2048,    4096,
                                                            16384, 65536, 262144, 1048576, 16777216};

// A cumulative histogram over fixed bounds. Written by one thread.
class Histogram {
 public:
  static constexpr size_t kBoundsMax = 16;
  // `bounds` is ascending, at most kBoundsMax, and outlives the histogram.
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds) { DPA_ASSERT(bounds.size() <= kBoundsMax); }
  void Observe(double value);

  std::span<const double> bounds() const { return bounds_; }
  uint64_t bucket(size_t index) const { return buckets_[index].value(); }  // Not cumulative; index == bounds: +Inf.
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::span<const double> bounds_;
  std::array<Counter, kBoundsMax + 1> buckets_;
  std::atomic<double> sum_{0};
};

using MetricLabels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

class MetricsPage {
 public:
  // Samples of one name and label set add up. `name` is the full metric name; counters end in _total.
  void AddCounter(std::string_view name, std::string_view help, MetricLabels labels, double value);
  void AddGauge(std::string_view name, std::string_view help, MetricLabels labels, double value);
  void AddHistogram(std::string_view name, std::string_view help, MetricLabels labels, const Histogram& histogram);

  // Prometheus text exposition format 0.0.4.
  std::string Text() const;

 private:
  enum class Kind : uint8_t { kCounter, kGauge, kHistogram };
  struct Sample {
    double value = 0;
    std::vector<uint64_t> buckets;  // Not cumulative, with +Inf last.
    std::vector<double> bounds;
  };
  using LabelList = std::vector<std::pair<std::string, std::string>>;
  struct Family {
    Kind kind;
    std::string help;
    std::map<LabelList, Sample> samples;
  };
  Sample& Find(Kind kind, std::string_view name, std::string_view help, MetricLabels labels);
  std::map<std::string, Family> families_;
};

// The list of those that have something to say at a scrape. Thread-safe; collectors run on the scraping thread and read
// counters only.
class MetricsRegistry {
 public:
  using Collector = std::function<void(MetricsPage&)>;
  void Register(Collector collector);
  std::string Scrape() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Collector> collectors_;
};

}  // namespace dpa
