// ConnectionLimiter decides at accept whether a client connection is served: it counts those of all workers together,
// and those of each client address.
//
//     Admit --> admitted --> … --> Leave
//         \--> full | client_full: answered 503 by the server, and closed
//
// One serves all workers, so it is, with the mailbox and the snapshot, one of the few things that several threads
// write. A share of each limit per worker would need none of that, but would refuse clients that are within it: the
// kernel deals connections out by a hash of addresses and ports, and of a client's twelve it may give six to one of
// eight workers. It is touched twice in the life of a connection and never by a request; it takes no lock, and a try
// fails only because another thread's has succeeded.
//
// Clients are told apart by IPv4 address, or by the /64 of an IPv6 address: that is what one subscriber gets, and a
// limit per single address would be none for who can take another at will. Unix peers have no address and are exempt,
// and so is whoever `exempt` names: a proxy in front of us carries the connections of many clients.
//
// A limit is never passed: of two connections that come at the same moment as the last place, both may be refused.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/address.h"

namespace dpa {

struct ConnectionLimiterOptions {
  uint64_t connections_max = 0;             // --max-connections, of all workers together. 0: no limit.
  uint32_t connections_per_client_max = 0;  // --max-connections-per-client. 0: no limit.
  // Peers that are not counted by address; called at accept on workers' threads, several at once. Empty: nobody.
  std::function<bool(const Address& peer)> exempt;
};

class ConnectionLimiter {
 public:
  enum class Verdict : uint8_t { kAdmitted, kFull, kClientFull };
  // What Admit counted, for Leave.
  struct Ticket {
    Verdict verdict = Verdict::kAdmitted;
    uint64_t client = 0;  // 0: not counted by address.
  };

  explicit ConnectionLimiter(ConnectionLimiterOptions options);
  ConnectionLimiter(const ConnectionLimiter&) = delete;
  ConnectionLimiter& operator=(const ConnectionLimiter&) = delete;

  // Any thread. `peer` matters only if wants_peer(); a default Address is exempt from the limit per client.
  Ticket Admit(const Address& peer);
  // Any thread, once for each Admit that admitted.
  void Leave(const Ticket& ticket);

  bool wants_peer() const { return options_.connections_per_client_max != 0; }
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }
  // Connections counted for that client. For tests.
  uint64_t client_count(const Address& peer) const;

 private:
  // Counts by client: a hash table of buckets of one cache line. A word is a tag, 40 bits of the client's keyed hash,
  // over a count of 24; 0 is a free one. Clients of one bucket and tag share a count, by a chance of 2^-40. When nine
  // clients meet in a bucket the ninth is admitted uncounted; at the most a quarter of the words is in use, and nobody
  // outside knows the key.
  static constexpr size_t kWords = 8;
  static constexpr int kCountBits = 24;
  struct alignas(64) Bucket {
    std::array<std::atomic<uint64_t>, kWords> words{};
  };
  enum class Counted : uint8_t { kYes, kNo, kOver };

  uint64_t HashOf(const Address& peer) const;
  Bucket& BucketOf(uint64_t client) { return buckets_[client & (buckets_.size() - 1)]; }
  static uint64_t CountIn(const Bucket& bucket, uint64_t tag);
  Counted AddTo(Bucket& bucket, uint64_t tag);
  static void RemoveFrom(Bucket& bucket, uint64_t tag);

  const ConnectionLimiterOptions options_;
  const std::array<uint64_t, 4> key_;
  alignas(64) std::atomic<uint64_t> count_{0};
  std::vector<Bucket> buckets_;  // A power of two; none without a limit per client.
};

}  // namespace dpa
