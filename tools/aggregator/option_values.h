// The forms of option values: text to value, for flags, environment and file alike. Pure.
//
// Each returns nullopt if the *whole* text is not of its form; the caller knows what it expected and says so.

#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dpa {

// "500ms", "1m30s", "2h", "0". Units: ms, s, m, h; each at most once, from large to small. At most 30 days.
std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text);

// "4096", "64KiB", "16MiB", "1GiB". At most 1 TiB.
std::optional<uint64_t> ParseBytes(std::string_view text);

std::optional<uint32_t> ParseCount(std::string_view text);

// "0-3,8" to {0, 1, 2, 3, 8}: sorted, without duplicates. Each below 4096.
std::optional<std::vector<int>> ParseCpuList(std::string_view text);

// "true", "1", "yes", "on" and their opposites.
std::optional<bool> ParseBool(std::string_view text);

// Whether `text` is HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH with a PATH that fits a socket address (107 bytes).
bool IsAddress(std::string_view text);

// "http://HOST[:PORT][/prefix]" to the same with its port and without a trailing slash, or "unix:PATH" unchanged.
std::optional<std::string> NormaliseHttpUrl(std::string_view text);

// A path and perhaps a query, as a request's target has them.
bool IsRequestPath(std::string_view text);

// The candidate that `word` was most likely meant to be; empty if none is near.
std::string_view Nearest(std::string_view word, const std::vector<std::string_view>& candidates);

}  // namespace dpa
