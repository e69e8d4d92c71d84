#include "http/upstream_resolver.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "core/log.h"

namespace dpa {
namespace {

using Clock = std::chrono::steady_clock;

bool Before(const Address& a, const Address& b) { return a.ToString() < b.ToString(); }

// The resolver deals addresses in turn; the order says nothing, and a change of it is none.
void Normalise(std::vector<Address>& addresses) {
  std::sort(addresses.begin(), addresses.end(), Before);
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
}

}  // namespace

struct UpstreamResolver::State {
  struct Entry {
    UpstreamName name;
    std::vector<Address> addresses;  // Empty: never resolved.
    std::string error;
    bool fixed = false;  // By Add; else a backend.
    bool wanted = true;  // Named by the last SetBackends.
    bool asked = false;  // The resolver has answered, well or not, or need not be asked.
    Clock::time_point due = Clock::time_point::min();
  };

  State(const UpstreamResolverOptions& o, Lookup l)
      : options(o), lookup(std::move(l)), directory(std::make_shared<const UpstreamDirectory>()) {}

  Entry* NextDue();
  Clock::time_point DueAfter(const Entry& entry) const;
  void Note(const std::string& url, Entry& entry, std::expected<std::vector<Address>, std::string> found);
  void Publish();
  void Put(const std::string& url, UpstreamName name, bool fixed);
  bool AllAsked() const;

  const UpstreamResolverOptions options;
  const Lookup lookup;
  SnapshotPublisher<UpstreamDirectory> directory;

  std::mutex mutex;  // Guards what follows; never held during a lookup.
  std::condition_variable changed;
  std::map<std::string, Entry> entries;  // By URL.
  std::function<void()> wake;
  std::condition_variable asked;
  bool running = false;  // The thread is there.
  bool stopping = false;
  uint64_t good_count = 0;
  uint64_t bad_count = 0;
};

UpstreamResolver::UpstreamResolver(const UpstreamResolverOptions& options, Lookup lookup)
    : state_(std::make_shared<State>(options, std::move(lookup))) {}

UpstreamResolver::~UpstreamResolver() { Stop(); }

const SnapshotPublisher<UpstreamDirectory>& UpstreamResolver::directory() const { return state_->directory; }

void UpstreamResolver::State::Put(const std::string& url, UpstreamName name, bool fixed) {
  Entry& entry = entries[url];
  entry.fixed |= fixed;
  entry.wanted = true;
  if (!entry.addresses.empty() || !name.literal) {
    entry.name = std::move(name);
    return;
  }
  entry.addresses = {Address::Parse(name.host_port).value()};
  entry.asked = true;
  entry.name = std::move(name);
  entry.due = Clock::time_point::max();
}

// REQUIRES: the mutex is held, here and below.
void UpstreamResolver::State::Publish() {
  auto next = std::make_shared<UpstreamDirectory>();
  for (const auto& [url, entry] : entries) {
    std::vector<UpstreamUrl>& addresses = next->addresses[url];
    for (const Address& address : entry.addresses) {
      addresses.push_back({address, entry.name.authority, entry.name.path_prefix});
    }
  }
  directory.Publish(std::move(next));
}

Clock::time_point UpstreamResolver::State::DueAfter(const Entry& entry) const {
  if (entry.name.literal) return Clock::time_point::max();
  const bool never = entry.addresses.empty();
  if (never) return Clock::now() + std::chrono::milliseconds(options.retry_ms);
  if (options.interval_ms == 0) return Clock::time_point::max();
  return Clock::now() + std::chrono::milliseconds(options.interval_ms);
}

void UpstreamResolver::State::Note(const std::string& url, Entry& entry,
                                   std::expected<std::vector<Address>, std::string> found) {
  if (found && found->empty()) found = std::unexpected(std::string("the name has no address"));
  if (!found) {
    ++bad_count;
    // Once per cause: a resolver that is down for a night is one line.
    if (entry.error != found.error()) {
      LogWarn("upstream_unresolved", "upstream={} error={} keeping={}", url, Quoted(found.error()),
              entry.addresses.size());
    }
    entry.error = found.error();
  } else {
    ++good_count;
    entry.error.clear();
    Normalise(*found);
    if (found->size() > options.addresses_max) {
      LogWarn("upstream_addresses", "upstream={} count={} used={}", url, found->size(), options.addresses_max);
      found->resize(options.addresses_max);
    }
    if (*found != entry.addresses) {
      entry.addresses = std::move(*found);
      LogInfo("upstream_resolved", "upstream={} addresses={}", url, entry.addresses.size());
      Publish();
    }
  }
  entry.asked = true;
  entry.due = DueAfter(entry);
}

bool UpstreamResolver::State::AllAsked() const {
  return std::all_of(entries.begin(), entries.end(), [](const auto& one) { return one.second.asked; });
}

std::vector<std::string> UpstreamResolver::Add(const std::vector<std::string>& urls) {
  std::vector<std::string> problems;
  std::unique_lock lock(state_->mutex);
  for (const std::string& url : urls) {
    if (std::expected<UpstreamName, std::string> name = ParseUpstreamName(url)) {
      state_->Put(url, std::move(*name), true);
    } else {
      problems.push_back(name.error());
    }
  }
  state_->Publish();
  if (state_->AllAsked()) return problems;
  StartThread();
  const auto first_wait = std::chrono::milliseconds(state_->options.first_wait_ms);
  state_->asked.wait_for(lock, first_wait, [this] { return state_->AllAsked(); });
  for (auto& [url, entry] : state_->entries) {
    if (!entry.asked) entry.error = "the resolver has not answered yet";
  }
  return problems;
}

// REQUIRES: the mutex is held.
void UpstreamResolver::StartThread() {
  state_->changed.notify_all();
  if (std::exchange(state_->running, true)) return;
  std::thread([state = state_] { Run(state); }).detach();
}

void UpstreamResolver::SetBackends(std::vector<std::string> urls) {
  const std::lock_guard lock(state_->mutex);
  for (auto& [url, entry] : state_->entries) entry.wanted = entry.fixed;
  for (const std::string& url : urls) {
    if (std::expected<UpstreamName, std::string> name = ParseUpstreamName(url)) {
      state_->Put(url, std::move(*name), false);
    }
  }
  std::erase_if(state_->entries, [](const auto& one) { return !one.second.wanted; });
  state_->Publish();
  state_->changed.notify_all();
}

void UpstreamResolver::Start(std::function<void()> wake) {
  const std::lock_guard lock(state_->mutex);
  state_->wake = std::move(wake);
  StartThread();
}

void UpstreamResolver::Stop() {
  const std::lock_guard lock(state_->mutex);
  state_->stopping = true;
  state_->wake = nullptr;
  state_->changed.notify_all();
}

UpstreamResolver::State::Entry* UpstreamResolver::State::NextDue() {
  const auto next = std::min_element(entries.begin(), entries.end(),
                                     [](const auto& a, const auto& b) { return a.second.due < b.second.due; });
  return next == entries.end() ? nullptr : &next->second;
}

void UpstreamResolver::Run(const std::shared_ptr<State>& shared) {
  State& state = *shared;
  std::unique_lock lock(state.mutex);
  while (!state.stopping) {
    State::Entry* entry = state.NextDue();
    if (entry == nullptr || entry->due == Clock::time_point::max()) {
      state.changed.wait(lock);
      continue;
    }
    if (entry->due > Clock::now()) {
      // A copy: wait_until reads it again without the lock, when the entry may be gone.
      const Clock::time_point due = entry->due;
      state.changed.wait_until(lock, due);
      continue;
    }
    const auto found_entry = std::find_if(state.entries.begin(), state.entries.end(),
                                          [entry](const auto& one) { return &one.second == entry; });
    const std::string url = found_entry->first;
    const std::string host_port = entry->name.host_port;
    lock.unlock();
    std::expected<std::vector<Address>, std::string> found = state.lookup(host_port);
    lock.lock();
    if (state.stopping) return;
    const auto still = state.entries.find(url);
    if (still == state.entries.end()) continue;
    const uint64_t version = state.directory.version();
    state.Note(url, still->second, std::move(found));
    // With the lock held, so that nobody is woken after Stop().
    if (state.directory.version() != version && state.wake) state.wake();
    if (state.AllAsked()) state.asked.notify_all();
  }
}

std::vector<UpstreamResolver::Status> UpstreamResolver::StatusOfAll() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<Status> all;
  for (const auto& [url, entry] : state_->entries) {
    Status status{url, {}, entry.error};
    for (const Address& address : entry.addresses) status.addresses.push_back(address.ToString());
    all.push_back(std::move(status));
  }
  return all;
}

void UpstreamResolver::Collect(MetricsPage& page) const {
  const std::lock_guard lock(state_->mutex);
  constexpr std::string_view kHelp = "Lookups of the names of upstreams, by result.";
  page.AddCounter("dpa_upstream_lookups_total", kHelp, {{"result", "ok"}}, static_cast<double>(state_->good_count));
  page.AddCounter("dpa_upstream_lookups_total", kHelp, {{"result", "failed"}}, static_cast<double>(state_->bad_count));
  for (const auto& [url, entry] : state_->entries) {
    page.AddGauge("dpa_upstream_addresses", "Addresses that an upstream's URL stands for; 0: it is not resolved.",
                  {{"upstream", url}}, static_cast<double>(entry.addresses.size()));
  }
}

}  // namespace dpa
