// Snapshot hands immutable data from the control plane to the workers without a lock on their path.
//
// SnapshotPublisher<T> holds the newest version. Each worker has a SnapshotReader<T>, adopts the newest between two
// turns of its loop, and an exchange pins what it began with: later versions never touch it. Pins count on the worker's
// own copy of the handle with a plain integer, so two workers never write the same cache line; the data is freed when
// the last worker that had it lets go of its last pin.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "core/assert.h"

namespace dpa {

template <class T>
class SnapshotPublisher {
 public:
  explicit SnapshotPublisher(std::shared_ptr<const T> first) : current_(std::move(first)) { DPA_ASSERT(current_); }

  // Any thread. Readers adopt it at their next turn; wake them (Mailbox::Wake) where that should be soon.
  void Publish(std::shared_ptr<const T> next) {
    DPA_ASSERT(next);
    const std::lock_guard lock(mutex_);
    current_.swap(next);
    version_.fetch_add(1, std::memory_order_release);
  }
  std::shared_ptr<const T> Current() const {
    const std::lock_guard lock(mutex_);
    return current_;
  }
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

 private:
  mutable std::mutex mutex_;  // Taken by publishers, and by a reader once per new version.
  std::shared_ptr<const T> current_;
  std::atomic<uint64_t> version_{1};
};

template <class T>
class SnapshotReader {
  struct Holder {
    std::shared_ptr<const T> data;
    uint32_t pins_count = 0;
  };

 public:
  // Keeps one version alive. Move-only; belongs to the worker's thread.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept : holder_(std::exchange(other.holder_, nullptr)) {}
    Pin& operator=(Pin&& other) noexcept {
      if (this != &other) {
        Unpin();
        holder_ = std::exchange(other.holder_, nullptr);
      }
      return *this;
    }
    ~Pin() { Unpin(); }
    const T& operator*() const { return *holder_->data; }
    const T* operator->() const { return holder_->data.get(); }
    explicit operator bool() const { return holder_ != nullptr; }

   private:
    friend class SnapshotReader;
    explicit Pin(Holder* holder) : holder_(holder) { ++holder_->pins_count; }
    void Unpin() {
      if (holder_ != nullptr && --holder_->pins_count == 0) delete holder_;
      holder_ = nullptr;
    }
    Holder* holder_ = nullptr;
  };

  explicit SnapshotReader(const SnapshotPublisher<T>& publisher) : publisher_(publisher) { Adopt(); }

  // Takes over the newest version if there is a newer one; true if so. Called between two turns.
  bool Adopt() {
    const uint64_t version = publisher_.version();
    if (version == version_) return false;
    version_ = version;
    current_ = Pin(new Holder{publisher_.Current()});
    return true;
  }
  Pin PinCurrent() const { return Pin(current_.holder_); }
  const T& current() const { return *current_; }

 private:
  const SnapshotPublisher<T>& publisher_;
  uint64_t version_ = 0;
  Pin current_;
};

}  // namespace dpa
