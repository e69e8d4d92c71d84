// Cancellation lets one Cancel() end a story that waits for one thing after another (a queue, a connect, a socket):
// it is handed on to what is waited for now, or to whatever is waited for next.
//
// The first reason counts. Cancel is a request: the story ends by returning through its error paths.

#pragma once

#include "core/timer_wheel.h"

namespace dpa {

class Cancellation final : public Cancellable {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  void Cancel(Error reason) override {
    if (cancelled_) return;
    cancelled_ = true;
    reason_ = reason;
    if (target_ != nullptr) target_->Cancel(reason);
  }

  // `target` is waited for from now on; nullptr: nothing is. It is cancelled at once if the story has been already.
  // `target` stays alive until the next call.
  void Guard(Cancellable* target) {
    target_ = target;
    if (cancelled_ && target_ != nullptr) target_->Cancel(reason_);
  }

  bool cancelled() const { return cancelled_; }
  Error reason() const { return reason_; }

 private:
  Cancellable* target_ = nullptr;
  bool cancelled_ = false;
  Error reason_;
};

}  // namespace dpa
