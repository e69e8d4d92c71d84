#include "http/connection_limiter.h"

#include <netinet/in.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>
#include <utility>

#include "core/assert.h"

namespace dpa {
namespace {

// Words for four times as many clients as there may be connections, within 16 MiB.
constexpr size_t kBucketsMin = 1 << 8;
constexpr size_t kBucketsMax = 1 << 18;

std::array<uint64_t, 4> RandomKey() {
  std::random_device random;
  std::array<uint64_t, 4> key;
  for (uint64_t& word : key) word = uint64_t{random()} << 32 | random();
  return key;
}

size_t BucketsFor(const ConnectionLimiterOptions& options) {
  if (options.connections_per_client_max == 0) return 0;
  const uint64_t clients = options.connections_max == 0 ? kBucketsMax : options.connections_max;
  return std::bit_ceil(std::clamp<uint64_t>(clients / 2, kBucketsMin, kBucketsMax));
}

uint64_t Mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

ConnectionLimiter::ConnectionLimiter(ConnectionLimiterOptions options)
    : options_(std::move(options)), key_(RandomKey()), buckets_(BucketsFor(options_)) {
  DPA_ASSERT(options_.connections_per_client_max < 1u << (kCountBits - 1));
}

ConnectionLimiter::Ticket ConnectionLimiter::Admit(const Address& peer) {
  const uint64_t before = count_.fetch_add(1, std::memory_order_relaxed);
  if (options_.connections_max != 0 && before >= options_.connections_max) {
    count_.fetch_sub(1, std::memory_order_relaxed);
    return {Verdict::kFull, 0};
  }
  const bool has_address = peer.family() == AF_INET || peer.family() == AF_INET6;
  if (buckets_.empty() || !has_address || (options_.exempt && options_.exempt(peer))) return {};
  const uint64_t client = HashOf(peer);
  switch (AddTo(BucketOf(client), client >> kCountBits)) {
    case Counted::kYes:
      return {Verdict::kAdmitted, client};
    case Counted::kNo:
      return {};
    case Counted::kOver:
      break;
  }
  count_.fetch_sub(1, std::memory_order_relaxed);
  return {Verdict::kClientFull, 0};
}

void ConnectionLimiter::Leave(const Ticket& ticket) {
  DPA_ASSERT(ticket.verdict == Verdict::kAdmitted);
  if (ticket.client != 0) RemoveFrom(BucketOf(ticket.client), ticket.client >> kCountBits);
  count_.fetch_sub(1, std::memory_order_relaxed);
}

uint64_t ConnectionLimiter::client_count(const Address& peer) const {
  if (buckets_.empty()) return 0;
  const uint64_t client = HashOf(peer);
  return CountIn(buckets_[client & (buckets_.size() - 1)], client >> kCountBits);
}

// Never 0 in its tag.
uint64_t ConnectionLimiter::HashOf(const Address& peer) const {
  uint64_t network = 0;
  if (peer.family() == AF_INET) {
    sockaddr_in address;
    std::memcpy(&address, peer.get(), sizeof address);
    network = address.sin_addr.s_addr;
  } else {
    sockaddr_in6 address;
    std::memcpy(&address, peer.get(), sizeof address);
    std::memcpy(&network, &address.sin6_addr, sizeof network);
  }
  const uint64_t family_key = key_[peer.family() == AF_INET ? 0 : 1];
  return Mix(Mix(network ^ family_key, key_[2] | 1) ^ network, key_[3] | 1) | uint64_t{1} << 63;
}

uint64_t ConnectionLimiter::CountIn(const Bucket& bucket, uint64_t tag) {
  uint64_t count = 0;
  for (const std::atomic<uint64_t>& word : bucket.words) {
    const uint64_t value = word.load();
    if (value >> kCountBits == tag) count += value & ((1 << kCountBits) - 1);
  }
  return count;
}

// A word that was freed just now may make two threads put one client into two words: so the sum counts, and is looked
// at once more when ours is in it.
ConnectionLimiter::Counted ConnectionLimiter::AddTo(Bucket& bucket, uint64_t tag) {
  for (;;) {
    if (CountIn(bucket, tag) >= options_.connections_per_client_max) return Counted::kOver;
    std::atomic<uint64_t>* chosen = nullptr;
    uint64_t found = 0;
    for (std::atomic<uint64_t>& word : bucket.words) {
      const uint64_t value = word.load();
      const bool ours = value >> kCountBits == tag;
      if (!ours && (value != 0 || chosen != nullptr)) continue;
      chosen = &word;
      found = value;
      if (ours) break;
    }
    if (chosen == nullptr) return Counted::kNo;
    const uint64_t counted = found == 0 ? tag << kCountBits | 1 : found + 1;
    if (chosen->compare_exchange_strong(found, counted)) break;
  }
  if (CountIn(bucket, tag) <= options_.connections_per_client_max) return Counted::kYes;
  RemoveFrom(bucket, tag);
  return Counted::kOver;
}

// Each connection that was counted is in one of the words, so there is one to take from.
void ConnectionLimiter::RemoveFrom(Bucket& bucket, uint64_t tag) {
  for (;;) {
    for (std::atomic<uint64_t>& word : bucket.words) {
      uint64_t found = word.load();
      if (found >> kCountBits != tag) continue;
      const bool last = (found & ((1 << kCountBits) - 1)) == 1;
      if (word.compare_exchange_strong(found, last ? 0 : found - 1)) return;
    }
  }
}

}  // namespace dpa
