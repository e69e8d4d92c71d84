#include "http/upstream_url.h"

#include <algorithm>
#include <utility>

namespace dpa {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::string_view kScheme = "http://";

bool IsPrefix(std::string_view path) {
  return std::all_of(path.begin(), path.end(), [](char c) { return c > 0x20 && c < 0x7F && c != '?' && c != '#'; });
}

std::unexpected<std::string> Problem(std::string_view url, std::string_view what) {
  return std::unexpected("\"" + std::string(url) + "\": " + std::string(what));
}

}  // namespace

std::expected<UpstreamName, std::string> ParseUpstreamName(std::string_view url) {
  if (url.starts_with(kUnix)) return UpstreamName{std::string(url), "localhost", "", true};
  if (url.starts_with("https://")) return Problem(url, "https is not supported yet, use http:// or unix:");
  if (!url.starts_with(kScheme)) return Problem(url, "expected http://HOST:PORT[/prefix] or unix:PATH");
  const std::string_view rest = url.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  const std::string_view authority = rest.substr(0, slash);
  std::string_view path = rest.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (!IsPrefix(path)) return Problem(url, "the path may hold neither a query nor a fragment nor blanks");
  if (authority.empty()) return Problem(url, "the host is missing");

  const size_t colon = authority.rfind(':');
  const bool has_port = colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos;
  std::string host(has_port ? authority.substr(0, colon) : authority);
  // RFC 6761 §6.3 leaves the family open, and most servers on this host listen on 127.0.0.1 alone.
  if (host == "localhost") host = "127.0.0.1";
  UpstreamName name;
  name.host_port = host + (has_port ? std::string(authority.substr(colon)) : ":80");
  name.authority = authority;
  name.path_prefix = path;
  name.literal = Address::Parse(name.host_port).has_value();
  return name;
}

std::expected<UpstreamUrl, std::string> ParseUpstreamUrl(std::string_view url, Names names) {
  std::expected<UpstreamName, std::string> name = ParseUpstreamName(url);
  if (!name) return std::unexpected(name.error());
  const std::expected<Address, std::string> address =
      names == Names::kResolve ? Address::Resolve(name->host_port) : Address::Parse(name->host_port);
  if (!address) return Problem(url, address.error());
  return UpstreamUrl{*address, std::move(name->authority), std::move(name->path_prefix)};
}

}  // namespace dpa
