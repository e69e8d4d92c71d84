// TimerWheel keeps a worker's deadlines: arming and disarming are O(1), and its next expiry is the only timeout that
// the ring is given. Seven levels of 64 slots, one millisecond a tick, so 139 years; an entry on a higher level is
// moved down when its slot comes up.
//
// Entries are intrusive and belong to their owner; an entry is in exactly one slot while armed.

#pragma once

#include <array>
#include <cstdint>

#include "core/assert.h"
#include "core/result.h"

namespace dpa {

class TimerWheel {
 public:
  class Entry {
   public:
    Entry() = default;
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    bool armed() const { return next_ != nullptr; }

   protected:
    ~Entry() { DPA_ASSERT(!armed()); }
    // Called once, disarmed already; may arm again.
    virtual void OnExpire() = 0;

   private:
    friend class TimerWheel;
    Entry* next_ = nullptr;
    Entry* previous_ = nullptr;
    uint64_t expires_ms_ = 0;
  };

  static constexpr uint64_t kNever = UINT64_MAX;

  explicit TimerWheel(uint64_t now_ms);
  ~TimerWheel();  // REQUIRES: nothing is armed.

  // Fires at the first Advance() that reaches `expires_ms`. A time in the past fires at the next one.
  // Arming an armed entry moves it.
  void Arm(Entry& entry, uint64_t expires_ms);
  void Disarm(Entry& entry);  // No-op if not armed.

  // Brings the clock forward and fires nothing. REQUIRES: `now_ms` does not go back.
  void SetClock(uint64_t now_ms) {
    DPA_ASSERT(now_ms >= clock_ms_);
    clock_ms_ = now_ms;
  }
  // Brings the clock forward and fires everything due at `now_ms`.
  void Advance(uint64_t now_ms);

  // No entry fires before this; kNever if none is armed. May be early (the edge of a coarse slot), never late.
  uint64_t next_expiry_ms() const;
  uint32_t armed_count() const { return armed_count_; }
  // The clock: what a relative time counts from.
  uint64_t now_ms() const { return clock_ms_; }

 private:
  static constexpr int kLevels = 7;
  static constexpr int kSlotBits = 6;
  static constexpr uint64_t kSlots = 1u << kSlotBits;

  // Heads of circular lists.
  struct Head : Entry {
    void OnExpire() override {}
    ~Head() = default;
  };
  void Insert(Entry& entry);
  static void Link(Entry& head, Entry& entry);
  static void Unlink(Entry& entry);
  void Cascade(int level);

  uint64_t clock_ms_;
  uint64_t
      // Every tick up to here has been fired; behind the clock between SetClock() and Advance(), and within.
      fired_ms_;
  uint32_t armed_count_ = 0;
  std::array<uint64_t, kLevels> occupied_{};  // Bit per slot: may hold entries.
  std::array<std::array<Head, kSlots>, kLevels> slots_;
};

// What a Deadline ends early: a socket, a call. Cancel notes the first reason only and never waits.
class Cancellable {
 public:
  virtual void Cancel(Error reason) = 0;

 protected:
  ~Cancellable() = default;
};

// An armed point in time that cancels what it guards. Armed once per phase; disarmed when destroyed.
class Deadline final : private TimerWheel::Entry {
 public:
  // `target` and `wheel` outlive the Deadline. `reason` is what the guarded code will see, a kTimeout as a rule.
  Deadline(TimerWheel& wheel, Cancellable& target, Error reason) : wheel_(wheel), target_(target), reason_(reason) {}
  ~Deadline() { wheel_.Disarm(*this); }

  // 0 means no limit: disarms.
  void ArmAfter(uint64_t milliseconds) {
    fired_ = false;
    if (milliseconds == 0) return wheel_.Disarm(*this);
    wheel_.Arm(*this, wheel_.now_ms() + milliseconds);
  }
  void Disarm() { wheel_.Disarm(*this); }
  bool fired() const { return fired_; }

 private:
  void OnExpire() override {
    fired_ = true;
    target_.Cancel(reason_);
  }

  TimerWheel& wheel_;
  Cancellable& target_;
  const Error reason_;
  bool fired_ = false;
};

}  // namespace dpa
