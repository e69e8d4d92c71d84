// Goal: what a name stands for follows the resolver, and survives its failures. Method: a resolver that the test speaks
// for, and waiting for what the directory says.

#include "http/upstream_resolver.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

namespace dpa {
namespace {

class FakeNames {
 public:
  void Set(const std::string& host_port, std::vector<std::string> addresses) {
    const std::lock_guard lock(mutex_);
    names_[host_port] = std::move(addresses);
  }
  UpstreamResolver::Lookup Lookup() {
    return [this](const std::string& host_port) -> std::expected<std::vector<Address>, std::string> {
      ++lookups_count;
      const std::lock_guard lock(mutex_);
      const auto found = names_.find(host_port);
      if (found == names_.end() || found->second.empty()) return std::unexpected("cannot resolve " + host_port);
      std::vector<Address> addresses;
      for (const std::string& text : found->second) addresses.push_back(*Address::Parse(text));
      return addresses;
    };
  }
  std::atomic<int> lookups_count{0};

 private:
  std::mutex mutex_;
  std::map<std::string, std::vector<std::string>> names_;
};

std::vector<std::string> AddressesOf(const UpstreamResolver& resolver, const std::string& url) {
  std::vector<std::string> texts;
  const auto directory = resolver.directory().Current();
  const auto found = directory->addresses.find(url);
  if (found == directory->addresses.end()) return {"not in the directory"};
  for (const UpstreamUrl& one : found->second) texts.push_back(one.address.ToString());
  return texts;
}

template <class Condition>
void WaitFor(Condition condition) {
  for (int i = 0; i < 20'000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_TRUE(condition());
}

using Texts = std::vector<std::string>;
constexpr const char* kUrl = "http://api.test:80/prefix";

TEST(UpstreamResolverTest, LiteralAddressesAreThereAtOnceAndNeverAskedFor) {
  FakeNames names;
  UpstreamResolver resolver({}, names.Lookup());
  EXPECT_TRUE(resolver.Add({"http://192.0.2.1:81/a", "unix:/run/api", "http://localhost:3000"}).empty());
  EXPECT_EQ(AddressesOf(resolver, "http://192.0.2.1:81/a"), Texts{"192.0.2.1:81"});
  EXPECT_EQ(resolver.directory().Current()->addresses.at("http://192.0.2.1:81/a")[0].path_prefix, "/a");
  EXPECT_EQ(AddressesOf(resolver, "unix:/run/api"), Texts{"unix:/run/api"});
  EXPECT_EQ(AddressesOf(resolver, "http://localhost:3000"), Texts{"127.0.0.1:3000"});
  EXPECT_EQ(names.lookups_count, 0);
}

TEST(UpstreamResolverTest, MalformedUrlsAreToldAndLeftOut) {
  FakeNames names;
  UpstreamResolver resolver({}, names.Lookup());
  EXPECT_EQ(resolver.Add({"ftp://x", "https://x", "http://"}).size(), 3u);
  EXPECT_TRUE(resolver.directory().Current()->addresses.empty());
}

TEST(UpstreamResolverTest, ANameWithSeveralAddressesHasAllOfThemInOneOrder) {
  FakeNames names;
  names.Set("api.test:80", {"192.0.2.2:80", "[2001:db8::1]:80", "192.0.2.1:80", "192.0.2.2:80"});
  UpstreamResolver resolver({}, names.Lookup());
  resolver.Add({kUrl});
  EXPECT_EQ(AddressesOf(resolver, kUrl), (Texts{"192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"}));
}

TEST(UpstreamResolverTest, AddressesComeAndGoAndFailuresChangeNothing) {
  FakeNames names;
  names.Set("api.test:80", {"192.0.2.1:80"});
  UpstreamResolver resolver({.interval_ms = 1, .retry_ms = 1}, names.Lookup());
  resolver.Add({kUrl});
  std::atomic<int> wakes_count{0};
  resolver.Start([&] { ++wakes_count; });
  names.Set("api.test:80", {"192.0.2.2:80", "192.0.2.1:80"});
  WaitFor([&] { return AddressesOf(resolver, kUrl).size() == 2; });
  WaitFor([&] { return wakes_count == 1; });

  names.Set("api.test:80", {});
  WaitFor([&] { return !resolver.StatusOfAll()[0].error.empty(); });
  EXPECT_EQ(AddressesOf(resolver, kUrl).size(), 2u) << "what was known last stays in force";

  names.Set("api.test:80", {"192.0.2.3:80"});
  WaitFor([&] { return AddressesOf(resolver, kUrl) == Texts{"192.0.2.3:80"}; });
  EXPECT_EQ(resolver.StatusOfAll()[0].error, "");
  resolver.Stop();
}

TEST(UpstreamResolverTest, ANameUnknownAtStartIsAskedForUntilItIsKnown) {
  FakeNames names;
  UpstreamResolver resolver({.interval_ms = 0, .retry_ms = 1}, names.Lookup());
  EXPECT_TRUE(resolver.Add({kUrl}).empty());
  EXPECT_EQ(AddressesOf(resolver, kUrl), Texts{});
  resolver.Start([] {});
  WaitFor([&] { return names.lookups_count > 3; });
  names.Set("api.test:80", {"192.0.2.1:80"});
  WaitFor([&] { return AddressesOf(resolver, kUrl).size() == 1; });
  // An interval of 0: once is enough.
  const int lookups_count = names.lookups_count;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(names.lookups_count, lookups_count);
}

TEST(UpstreamResolverTest, AResolverThatDoesNotAnswerKeepsNobodyWaiting) {
  std::atomic<bool> answers{false};
  const auto lookup = [&](const std::string&) -> std::expected<std::vector<Address>, std::string> {
    while (!answers) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return std::vector{*Address::Parse("192.0.2.1:80")};
  };
  UpstreamResolver resolver({.first_wait_ms = 10}, lookup);
  resolver.Add({kUrl, "http://192.0.2.9:80"});
  EXPECT_EQ(AddressesOf(resolver, kUrl), Texts{});
  EXPECT_EQ(AddressesOf(resolver, "http://192.0.2.9:80"), Texts{"192.0.2.9:80"});
  EXPECT_EQ(resolver.StatusOfAll()[1].error, "the resolver has not answered yet");
  answers = true;
  WaitFor([&] { return AddressesOf(resolver, kUrl) == Texts{"192.0.2.1:80"}; });
  EXPECT_EQ(resolver.StatusOfAll()[1].error, "");
  resolver.Stop();
}

TEST(UpstreamResolverTest, BackendsComeAndGoWithTheRoutes) {
  FakeNames names;
  names.Set("one.test:80", {"192.0.2.1:80"});
  names.Set("two.test:80", {"192.0.2.2:80"});
  UpstreamResolver resolver({}, names.Lookup());
  resolver.Add({"http://192.0.2.9:80"});
  resolver.Start([] {});
  resolver.SetBackends({"http://one.test", "nonsense"});
  WaitFor([&] { return AddressesOf(resolver, "http://one.test") == Texts{"192.0.2.1:80"}; });
  resolver.SetBackends({"http://two.test"});
  WaitFor([&] { return AddressesOf(resolver, "http://two.test") == Texts{"192.0.2.2:80"}; });
  EXPECT_EQ(AddressesOf(resolver, "http://one.test"), Texts{"not in the directory"});
  EXPECT_EQ(AddressesOf(resolver, "http://192.0.2.9:80"), Texts{"192.0.2.9:80"});
}

}  // namespace
}  // namespace dpa
