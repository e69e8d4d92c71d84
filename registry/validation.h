// What must hold of a DataPlaneService before it may carry requests, and of all of them together.
//
// Kubernetes lets almost anything through here (reference implementations accept any string and fail later, some by a
// crash), so each rule is ours: names that can be undone on delete, patterns that the route table can hold, and one
// owner for each group and version.

#pragma once

#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "registry/resource.h"

namespace dpa {

// Every problem of one object on its own.
void ValidateService(const DataPlaneService& service, std::vector<Problem>& problems);

// ValidateService of each, and that no two declare the same group and version; the later one in `services` is at fault,
// and the message names the file and line of the earlier.
void ValidateServices(std::span<const DataPlaneService> services, std::vector<Problem>& problems);

// A spec.services[].path: absolute, segments of RFC 3986 path characters, or `{name}`, or `{name...}` as the last one.
// Empty, "." and ".." segments are refused (so is a trailing slash), and braces elsewhere. The error is a sentence.
std::expected<void, std::string> CheckRoutePath(std::string_view path);

// "http://HOST[:PORT][/PATH]", "https://…" or "unix:PATH". The error is a sentence.
std::expected<void, std::string> CheckBaseUrl(std::string_view url);

// RFC 1123 subdomain, at most 253 bytes.
bool IsDnsSubdomain(std::string_view name);

// v1, v2beta1, v0alpha1: Kubernetes' pattern, with Grafana's v0.
bool IsApiVersion(std::string_view version);

}  // namespace dpa
