// Goal: the page is what Prometheus reads: help and type once per family, workers added up, labels escaped, buckets
// cumulative.
// Method: pages compared as text.

#include "core/metrics.h"

#include <gtest/gtest.h>

namespace dpa {
namespace {

TEST(MetricsPageTest, AddsUpWorkersAndPrintsEachFamilyOnce) {
  MetricsPage page;
  page.AddCounter("dpa_requests_total", "Requests.", {{"code", "200"}}, 3);
  page.AddCounter("dpa_requests_total", "Requests.", {{"code", "502"}}, 1);
  page.AddCounter("dpa_requests_total", "Requests.", {{"code", "200"}}, 4);
  page.AddGauge("dpa_connections", "Open connections.", {}, 5);
  page.AddGauge("dpa_connections", "Open connections.", {}, -2);
  EXPECT_EQ(page.Text(),
            "# HELP dpa_connections Open connections.\n"
            "# TYPE dpa_connections gauge\n"
            "dpa_connections 3\n"
            "# HELP dpa_requests_total Requests.\n"
            "# TYPE dpa_requests_total counter\n"
            "dpa_requests_total{code=\"200\"} 7\n"
            "dpa_requests_total{code=\"502\"} 1\n");
}

TEST(MetricsPageTest, HistogramsAreCumulativeAndAValueOnABoundBelongsBelowIt) {
  static constexpr double kBounds[] = {1, 2};
  Histogram one(kBounds), other(kBounds);
  one.Observe(0.5);
  one.Observe(1);
  other.Observe(1.5);
  other.Observe(100);
  MetricsPage page;
  page.AddHistogram("dpa_seconds", "Time.", {}, one);
  page.AddHistogram("dpa_seconds", "Time.", {}, other);
  EXPECT_EQ(page.Text(),
            "# HELP dpa_seconds Time.\n"
            "# TYPE dpa_seconds histogram\n"
            "dpa_seconds_count 4\n"
            "dpa_seconds_sum 103\n"
            "dpa_seconds_bucket{le=\"1\"} 2\n"
            "dpa_seconds_bucket{le=\"2\"} 3\n"
            "dpa_seconds_bucket{le=\"+Inf\"} 4\n");
}

TEST(MetricsPageTest, EscapesLabelValues) {
  MetricsPage page;
  page.AddGauge("dpa_x", "X.", {{"name", "a\"b\\c\nd"}}, 1);
  EXPECT_NE(page.Text().find(R"(dpa_x{name="a\"b\\c\nd"} 1)"), std::string::npos) << page.Text();
}

TEST(MetricsPageTest, CountersBeyondAMillionKeepEveryDigit) {
  MetricsPage page;
  page.AddCounter("dpa_bytes_total", "Bytes.", {}, 123456789012345.0);
  EXPECT_NE(page.Text().find("dpa_bytes_total 123456789012345\n"), std::string::npos) << page.Text();
}

TEST(MetricsRegistryTest, AScrapeAsksEveryCollector) {
  MetricsRegistry registry;
  Counter counter;
  registry.Register([&](MetricsPage& page) { page.AddCounter("dpa_a_total", "A.", {}, double(counter.value())); });
  registry.Register([&](MetricsPage& page) { page.AddCounter("dpa_a_total", "A.", {}, 10); });
  counter.Add(2);
  EXPECT_NE(registry.Scrape().find("dpa_a_total 12\n"), std::string::npos) << registry.Scrape();
}

}  // namespace
}  // namespace dpa
