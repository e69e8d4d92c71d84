#include "core/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace dpa {

TimerWheel::TimerWheel(uint64_t now_ms) : clock_ms_(now_ms), fired_ms_(now_ms) {
  for (auto& level : slots_) {
    for (Head& head : level) {
      head.next_ = &head;
      head.previous_ = &head;
    }
  }
}

TimerWheel::~TimerWheel() {
  DPA_ASSERT(armed_count_ == 0);
  for (auto& level : slots_) {
    for (Head& head : level) head.next_ = nullptr;
  }
}

void TimerWheel::Link(Entry& head, Entry& entry) {
  entry.previous_ = head.previous_;
  entry.next_ = &head;
  head.previous_->next_ = &entry;
  head.previous_ = &entry;
}

void TimerWheel::Unlink(Entry& entry) {
  entry.previous_->next_ = entry.next_;
  entry.next_->previous_ = entry.previous_;
  entry.next_ = nullptr;
  entry.previous_ = nullptr;
}

void TimerWheel::Arm(Entry& entry, uint64_t expires_ms) {
  Disarm(entry);
  // A tick that has been advanced to is over: the earliest is the next one.
  entry.expires_ms_ = std::clamp(expires_ms, fired_ms_ + 1, (uint64_t{1} << (kLevels * kSlotBits)) - 1);
  ++armed_count_;
  Insert(entry);
}

void TimerWheel::Disarm(Entry& entry) {
  if (!entry.armed()) return;
  Unlink(entry);
  --armed_count_;
}

// The level is that of the highest six-bit digit in which the expiry differs from now; the slot is that digit.
void TimerWheel::Insert(Entry& entry) {
  const uint64_t difference = entry.expires_ms_ ^ fired_ms_;
  const int level = difference == 0 ? 0 : (std::bit_width(difference) - 1) / kSlotBits;
  DPA_ASSERT(level < kLevels);
  const uint64_t slot = (entry.expires_ms_ >> (level * kSlotBits)) & (kSlots - 1);
  Link(slots_[level][slot], entry);
  occupied_[level] |= uint64_t{1} << slot;
}

void TimerWheel::Cascade(int level) {
  const uint64_t slot = (fired_ms_ >> (level * kSlotBits)) & (kSlots - 1);
  Head& head = slots_[level][slot];
  occupied_[level] &= ~(uint64_t{1} << slot);
  // Each goes to a lower level: its digit here is that of now.
  while (head.next_ != &head) {
    Entry& entry = *head.next_;
    Unlink(entry);
    Insert(entry);
  }
}

void TimerWheel::Advance(uint64_t now_ms) {
  SetClock(now_ms);
  while (fired_ms_ < now_ms) {
    const uint64_t next = next_expiry_ms();
    if (next > now_ms) {
      // Nothing is due up to then, and no slot's digit is passed over: jump.
      fired_ms_ = now_ms;
      return;
    }
    fired_ms_ = std::max(next, fired_ms_);
    for (int level = kLevels - 1; level > 0; --level) {
      // Digits below `level` are all zero: this is the moment at which that slot begins.
      if ((fired_ms_ & ((uint64_t{1} << (level * kSlotBits)) - 1)) == 0) Cascade(level);
    }
    const uint64_t slot = fired_ms_ & (kSlots - 1);
    Head& head = slots_[0][slot];
    occupied_[0] &= ~(uint64_t{1} << slot);
    while (head.next_ != &head) {
      Entry& entry = *head.next_;
      DPA_ASSERT(entry.expires_ms_ == fired_ms_);
      Disarm(entry);
      entry.OnExpire();
    }
  }
}

uint64_t TimerWheel::next_expiry_ms() const {
  if (armed_count_ == 0) return kNever;
  for (int level = 0; level < kLevels; ++level) {
    const int shift = level * kSlotBits;
    const uint64_t current = (fired_ms_ >> shift) & (kSlots - 1);
    // Slots of this level after the current one; an entry is always in a later slot of its level than now.
    const uint64_t later = current == kSlots - 1 ? 0 : occupied_[level] & (~uint64_t{0} << (current + 1));
    if (later == 0) continue;
    const uint64_t slot = static_cast<uint64_t>(std::countr_zero(later));
    return (fired_ms_ >> (shift + kSlotBits) << (shift + kSlotBits)) | (slot << shift);
  }
  DPA_ASSERT(false);  // An armed entry is always in a slot after now.
}

}  // namespace dpa
