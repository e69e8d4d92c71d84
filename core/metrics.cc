#include "core/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>

#include "core/assert.h"

namespace dpa {

void Histogram::Observe(double value) {
  size_t index = 0;
  while (index < bounds_.size() && value > bounds_[index]) ++index;
  buckets_[index].Add();
  sum_.store(sum_.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

MetricsPage::Sample& MetricsPage::Find(Kind kind, std::string_view name, std::string_view help, MetricLabels labels) {
  auto [family, created] = families_.try_emplace(std::string(name));
  if (created) {
    family->second.kind = kind;
    family->second.help = help;
  }
  DPA_ASSERT(family->second.kind == kind);
  LabelList list;
  list.reserve(labels.size());
  for (const auto& [key, value] : labels) list.emplace_back(key, value);
  return family->second.samples[std::move(list)];
}

void MetricsPage::AddCounter(std::string_view name, std::string_view help, MetricLabels labels, double value) {
  Find(Kind::kCounter, name, help, labels).value += value;
}

void MetricsPage::AddGauge(std::string_view name, std::string_view help, MetricLabels labels, double value) {
  Find(Kind::kGauge, name, help, labels).value += value;
}

void MetricsPage::AddHistogram(std::string_view name, std::string_view help, MetricLabels labels,
                               const Histogram& histogram) {
  Sample& sample = Find(Kind::kHistogram, name, help, labels);
  DPA_ASSERT(sample.bounds.empty() || std::ranges::equal(sample.bounds, histogram.bounds()));
  sample.bounds.assign(histogram.bounds().begin(), histogram.bounds().end());
  sample.buckets.resize(sample.bounds.size() + 1);
  for (size_t i = 0; i < sample.buckets.size(); ++i) sample.buckets[i] += histogram.bucket(i);
  sample.value += histogram.sum();
}

namespace {

prometheus::ClientMetric::Histogram ToPrometheus(const std::vector<uint64_t>& buckets,
                                                 const std::vector<double>& bounds, double sum) {
  prometheus::ClientMetric::Histogram out;
  uint64_t cumulative = 0;
  for (size_t i = 0; i < buckets.size(); ++i) {
    cumulative += buckets[i];
    const double bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
    out.bucket.push_back({cumulative, bound});
  }
  out.sample_count = cumulative;
  out.sample_sum = sum;
  return out;
}

}  // namespace

std::string MetricsPage::Text() const {
  std::vector<prometheus::MetricFamily> out;
  for (const auto& [name, family] : families_) {
    prometheus::MetricFamily& made = out.emplace_back();
    made.name = name;
    made.help = family.help;
    made.type = family.kind == Kind::kCounter ? prometheus::MetricType::Counter
                : family.kind == Kind::kGauge ? prometheus::MetricType::Gauge
                                              : prometheus::MetricType::Histogram;
    for (const auto& [labels, sample] : family.samples) {
      prometheus::ClientMetric& metric = made.metric.emplace_back();
      for (const auto& [key, value] : labels) metric.label.push_back({key, value});
      switch (family.kind) {
        case Kind::kCounter:
          metric.counter.value = sample.value;
          break;
        case Kind::kGauge:
          metric.gauge.value = sample.value;
          break;
        case Kind::kHistogram:
          metric.histogram = ToPrometheus(sample.buckets, sample.bounds, sample.value);
          break;
      }
    }
  }
  return prometheus::TextSerializer().Serialize(out);
}

void MetricsRegistry::Register(Collector collector) {
  const std::lock_guard lock(mutex_);
  collectors_.push_back(std::move(collector));
}

std::string MetricsRegistry::Scrape() const {
  const std::lock_guard lock(mutex_);
  MetricsPage page;
  for (const Collector& collector : collectors_) collector(page);
  return page.Text();
}

}  // namespace dpa
