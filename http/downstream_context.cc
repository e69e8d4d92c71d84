#include "http/downstream_context.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <utility>

namespace dpa {

std::unique_ptr<ExchangeMemory> DownstreamContext::TakeMemory() {
  if (!free_memory_) return std::make_unique<ExchangeMemory>(options, worker.bytes());
  std::unique_ptr<ExchangeMemory> memory = std::move(free_memory_);
  free_memory_ = std::move(memory->next_free);
  return memory;
}

// REQUIRES: its reader is detached. The buffers go back to the worker, so that free memory is small.
void DownstreamContext::GiveMemory(std::unique_ptr<ExchangeMemory> memory) {
  memory->head.Release();
  memory->body.Release();
  memory->next_free = std::move(free_memory_);
  free_memory_ = std::move(memory);
}

std::string_view DateClock::At(uint64_t now_ms) {
  if (now_ms >= valid_until_ms_) {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    tm utc;
    gmtime_r(&now.tv_sec, &utc);
    // IMF-fixdate by hand: strftime's names would follow the locale.
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    std::array<char, 64> text;
    std::snprintf(text.data(), text.size(), "%s, %02d %s %04d %02d:%02d:%02d GMT", kDays[utc.tm_wday], utc.tm_mday,
                  kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    std::copy_n(text.begin(), text_.size(), text_.begin());
    valid_until_ms_ = now_ms + 1000 - static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
  }
  return {text_.data(), text_.size()};
}

}  // namespace dpa
