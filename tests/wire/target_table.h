// Raw request paths and who answers them, by the routes below. Each row names the section that settles it. The same rows
// seed the fuzz target of the readings. A row is one line where it can be: it is read across.

// clang-format off

#pragma once

#include <ostream>
#include <string>
#include <string_view>

#include "http/route_table.h"

namespace dpa::wire {

using namespace std::string_view_literals;

struct TargetRow {
  std::string_view name;
  std::string_view section;
  std::string_view path;
  std::string_view decision;  // "TYPE capture=value …" (decoded, without the wildcard's), "delegate", "local" or "400 FAULT".
};

inline void PrintTo(const TargetRow& row, std::ostream* out) { *out << row.name; }

// The routes of the table: /n/… stands for /apis/g.example/v1/namespaces/n/….
inline RouteTable TargetRoutes() {
  RouteTableBuilder builder;
  const auto add = [&](ServiceType type, std::string_view method, const std::string& path) {
    const auto added = builder.Add(method, "/apis/g/v1/namespaces/{ns}/" + path, {.type = type, .service_name = "s", .path = type == ServiceType::kRoute ? path : ""});
    if (!added) std::abort();
  };
  add(ServiceType::kQuery, "POST", "datasources/{uid}/query");
  add(ServiceType::kResource, "", "datasources/{uid}/resources");
  add(ServiceType::kResource, "", "datasources/{uid}/resources/{path...}");
  add(ServiceType::kRoute, "", "items/{id}");
  add(ServiceType::kRoute, "", "my%20files/{rest...}");
  return builder.Build();
}

inline constexpr TargetRow kTargets[] = {
    // --- Plain ---
    {"query", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/query"sv, "query ns=n uid=u"},
    {"resource_root", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources"sv, "resource ns=n uid=u"},
    {"resource_tail", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources/a/b.json"sv, "resource ns=n uid=u"},
    {"trailing_slash", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/query/"sv, "delegate"},
    {"elsewhere", "3986 §3.3", "/api/health"sv, "delegate"},
    {"root", "3986 §3.3", "/"sv, "delegate"},
    {"local", "3986 §3.3", "/livez"sv, "local"},
    {"local_one", "3986 §3.3", "/readyz/ping"sv, "local"},
    {"local_slash", "3986 §3.3", "/readyz/"sv, "local"},
    {"asterisk", "9112 §3.2.4", "*"sv, "delegate"},

    // --- Captures ---
    {"capture_escaped", "3986 §2.1", "/apis/g/v1/namespaces/n/datasources/a%20b/query"sv, "query ns=n uid=a b"},
    {"capture_utf8", "3986 §2.5", "/apis/g/v1/namespaces/n/datasources/caf%C3%A9/query"sv, "query ns=n uid=caf\xc3\xa9"},
    {"capture_unreserved", "3986 §2.3", "/apis/g/v1/namespaces/n/datasources/%75/query"sv, "query ns=n uid=u"},
    {"capture_percent", "3986 §2.4", "/apis/g/v1/namespaces/n/datasources/50%25/query"sv, "query ns=n uid=50%"},
    {"capture_twice_encoded", "3986 §2.4", "/apis/g/v1/namespaces/n/datasources/%2575/query"sv, "400 ambiguous"},
    {"capture_slash", "3986 §2.2", "/apis/g/v1/namespaces/n/datasources/a%2Fb/query"sv, "400 ambiguous"},
    {"capture_slash_as_item", "3986 §2.2", "/apis/g/v1/namespaces/n/items/a%2fb"sv, "400 ambiguous"},
    {"capture_slash_makes_route", "3986 §2.2", "/apis/g/v1/namespaces/n/datasources/u%2Fquery"sv, "400 ambiguous"},
    {"capture_backslash", "3986 §2.2", "/apis/g/v1/namespaces/n/items/a%5Cb"sv, "400 ambiguous"},
    {"capture_backslash_raw", "3986 §3.3", "/apis/g/v1/namespaces/n/items/a\\b"sv, "400 ambiguous"},
    {"capture_parameters", "3986 §3.3", "/apis/g/v1/namespaces/n/items/a;v=1"sv, "400 ambiguous"},
    {"capture_semicolon_encoded", "3986 §2.2", "/apis/g/v1/namespaces/n/items/a%3Bv"sv, "route ns=n id=a;v"},
    {"capture_dots", "3986 §3.3", "/apis/g/v1/namespaces/n/items/..."sv, "route ns=n id=..."},
    {"capture_hidden", "3986 §3.3", "/apis/g/v1/namespaces/n/items/.hidden"sv, "route ns=n id=.hidden"},
    {"capture_dot", "3986 §5.2.4", "/apis/g/v1/namespaces/n/items/."sv, "400 ambiguous"},
    {"capture_dot_dot", "3986 §5.2.4", "/apis/g/v1/namespaces/../items/x"sv, "400 ambiguous"},
    {"capture_dot_dot_encoded", "3986 §6.2.2.2", "/apis/g/v1/namespaces/%2e%2E/items/x"sv, "400 ambiguous"},

    // --- Wildcards: passed as sent, as long as nobody reads them out of their route ---
    {"tail_escaped", "3986 §2.1", "/apis/g/v1/namespaces/n/datasources/u/resources/a%20b"sv, "resource ns=n uid=u"},
    {"tail_slash_encoded", "3986 §2.2", "/apis/g/v1/namespaces/n/datasources/u/resources/a%2Fb"sv, "resource ns=n uid=u"},
    {"tail_slash_doubled", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources/a//b"sv, "resource ns=n uid=u"},
    {"tail_slash_first", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources//"sv, "resource ns=n uid=u"},
    {"tail_url", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources/http://x/y"sv, "resource ns=n uid=u"},
    {"tail_twice_encoded", "3986 §2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/a%252Fb%2520"sv, "resource ns=n uid=u"},
    {"tail_backslash", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources/a\\b%5Cc"sv, "resource ns=n uid=u"},
    {"tail_parameters", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources/a;b=c/d"sv, "resource ns=n uid=u"},
    {"tail_dot", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/./a"sv, "resource ns=n uid=u"},
    {"tail_dot_dot_inside", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/a/../b"sv, "resource ns=n uid=u"},
    {"tail_dot_dot_to_root", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/a/.."sv, "resource ns=n uid=u"},
    {"tail_dot_dot_and_space", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/a%20b/../c"sv, "resource ns=n uid=u"},
    {"tail_dot_dot_out", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/../query"sv, "400 ambiguous"},
    {"tail_dot_dot_out_encoded", "3986 §6.2.2.2", "/apis/g/v1/namespaces/n/datasources/u/resources/%2E%2e/x"sv, "400 ambiguous"},
    {"tail_dot_dot_out_slash_encoded", "3986 §2.2", "/apis/g/v1/namespaces/n/datasources/u/resources/a%2F..%2F..%2Fx"sv, "400 ambiguous"},
    {"tail_dot_dot_out_twice_encoded", "3986 §2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/%252e%252e/x"sv, "400 ambiguous"},
    {"tail_dot_dot_out_backslash", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources\\..\\x"sv, "400 ambiguous"},
    {"tail_dot_dot_out_parameters", "3986 §3.3", "/apis/g/v1/namespaces/n/datasources/u/resources/..;/..;/x"sv, "400 ambiguous"},
    {"tail_dot_dot_to_other_uid", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/../../v/resources/x"sv, "400 ambiguous"},
    {"tail_dot_dot_to_same", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/../resources/x"sv, "resource ns=n uid=u"},
    {"tail_dot_dot_eats_empty", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/resources/a//../b"sv, "400 ambiguous"},
    {"tail_split_matters", "3986 §2.2", "/apis/g/v1/namespaces/n/datasources/u/resources/a%2Fb/../c"sv, "400 ambiguous"},

    // --- A route with an escape in its own literal ---
    {"literal_escaped", "3986 §2.1", "/apis/g/v1/namespaces/n/my%20files/x"sv, "route ns=n"},
    {"literal_over_escaped", "3986 §2.3", "/apis/g/v1/namespaces/n/%6Dy%20files/x"sv, "400 ambiguous"},

    // --- What must not slip past a route to the delegate ---
    {"slip_unreserved", "3986 §2.3", "/%61pis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_unreserved_twice", "3986 §2.4", "/%2561pis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_literal", "3986 §2.3", "/apis/g/v1/namespaces/n/datasources/u/quer%79"sv, "400 ambiguous"},
    {"slip_slash_first", "3986 §3.3", "//apis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_slash_doubled", "3986 §3.3", "/apis//g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_slash_encoded", "3986 §2.2", "/apis%2Fg/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_slash_twice_encoded", "3986 §2.4", "/apis%252Fg/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_inner_slash", "3986 §2.2", "/%61pis/g/v1/namespaces/n/datasources/a%2Fb/query"sv, "400 ambiguous"},
    {"slip_backslash", "3986 §3.3", "/apis\\g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_backslash_encoded", "3986 §2.2", "/apis/g%5cv1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_dot", "3986 §5.2.4", "/./apis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_dot_encoded", "3986 §6.2.2.2", "/apis/%2E/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_dot_dot", "3986 §5.2.4", "/public/../apis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_dot_dot_mixed", "3986 §6.2.2.2", "/public/.%2e/apis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_dot_dot_last", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/query/x/.."sv, "400 ambiguous"},
    {"slip_dot_last", "3986 §5.2.4", "/apis/g/v1/namespaces/n/datasources/u/query/."sv, "400 ambiguous"},
    {"slip_parameters", "3986 §3.3", "/apis;a=b/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_parameters_dots", "3986 §3.3", "/public/..;/apis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_parameters_empty", "3986 §3.3", "/;/apis/g/v1/namespaces/n/datasources/u/query"sv, "400 ambiguous"},
    {"slip_local", "3986 §2.3", "/%6civez"sv, "400 ambiguous"},
    {"slip_local_slash", "3986 §3.3", "//readyz"sv, "400 ambiguous"},
    {"slip_local_name", "3986 §2.3", "/readyz/%70ing"sv, "400 ambiguous"},
    {"slip_local_empty", "3986 §3.3", "/readyz//ping"sv, "400 ambiguous"},
    {"slip_local_dot", "3986 §5.2.4", "/x/../livez"sv, "400 ambiguous"},
    {"slip_local_parameters", "3986 §3.3", "/livez;x"sv, "400 ambiguous"},
    // Two servers in a row: the first resolves, the second decodes and resolves.
    {"slip_steps_twice", "3986 §5.2.4", "/q//%2e%2e/apis%2F/%2e%2e/livez"sv, "400 ambiguous"},
    {"slip_steps_in_order", "3986 §5.2.4", "/apis%2Fg/../x%2F../g/v1/namespaces/n/items/i"sv, "400 ambiguous"},

    // --- The delegate's in every reading: untouched ---
    {"delegate_escaped", "3986 §2.1", "/api/dashboards/a%20b"sv, "delegate"},
    {"delegate_slash_encoded", "3986 §2.2", "/api/dashboards/a%2Fb%252Fc"sv, "delegate"},
    {"delegate_slash_doubled", "3986 §3.3", "//api///x//"sv, "delegate"},
    {"delegate_backslash", "3986 §3.3", "/api/a\\b%5Cc"sv, "delegate"},
    {"delegate_parameters", "3986 §3.3", "/api;v=1/x"sv, "delegate"},
    {"delegate_dots", "3986 §5.2.4", "/api/./x/../y"sv, "delegate"},
    {"delegate_dots_encoded", "3986 §6.2.2.2", "/api/x/%2e%2e/y"sv, "delegate"},
    {"delegate_dots_beside_escapes", "3986 §6.2.2.2", "/api/x/../y%2Fz/./%20"sv, "delegate"},
    {"delegate_dots_both_ways", "3986 §6.2.2.2", "/api/x/%2e%2E/y/../z"sv, "400 ambiguous"},
    {"slip_steps_of_two_servers", "3986 §6.2.2.2", "/a%2F%2e%2e/readyz%252F%252e%252e/"sv, "400 ambiguous"},
    {"delegate_dots_in_two_ways_at_once", "3986 §6.2.2.2", "/api/x/%2e%2e/../z"sv, "400 ambiguous"},
    {"delegate_well_known", "8615 §3", "/.well-known/openid-configuration"sv, "delegate"},
    {"delegate_percent", "3986 §2.4", "/api/100%25"sv, "delegate"},
    {"delegate_percent_then_digit", "3986 §2.4", "/api/100%254"sv, "delegate"},
    {"delegate_braces", "3986 §2.2", "/api/{x}|^`\""sv, "delegate"},
    {"delegate_prefix_of_route", "3986 §3.3", "/apis/g/v1//namespaces"sv, "delegate"},

    // --- Broken, whoever would answer ---
    {"escape_not_hex", "3986 §2.1", "/api/%zz"sv, "400 escape_malformed"},
    {"escape_one_digit", "3986 §2.1", "/api/%4"sv, "400 escape_malformed"},
    {"escape_no_digit", "3986 §2.1", "/api/100%"sv, "400 escape_malformed"},
    {"escape_unicode", "3986 §2.1", "/api/%u002f"sv, "400 escape_malformed"},
    {"escape_in_tail", "3986 §2.1", "/apis/g/v1/namespaces/n/datasources/u/resources/%g0"sv, "400 escape_malformed"},
    {"escape_in_local", "3986 §2.1", "/livez%"sv, "400 escape_malformed"},
    {"nul", "3986 §7.3", "/api/a%00b"sv, "400 nul"},
    {"nul_twice_encoded", "3986 §7.3", "/api/a%2500b"sv, "400 nul"},
    {"nul_in_tail", "3986 §7.3", "/apis/g/v1/namespaces/n/datasources/u/resources/x%00.json"sv, "400 nul"},
    {"nul_cuts_local", "3986 §7.3", "/livez%00"sv, "400 nul"},
    {"above_root", "3986 §5.2.4", "/../etc/passwd"sv, "400 above_root"},
    {"above_root_later", "3986 §5.2.4", "/a/../../b"sv, "400 above_root"},
    {"above_root_encoded", "3986 §6.2.2.2", "/%2e%2e/etc/passwd"sv, "400 above_root"},
    {"above_root_slash_encoded", "3986 §2.2", "/..%2f..%2fetc"sv, "400 above_root"},
    {"above_root_twice_encoded", "3986 §2.4", "/%252e%252e%252fetc"sv, "400 above_root"},
    {"above_root_backslash", "3986 §3.3", "/..\\etc"sv, "400 above_root"},
    {"above_root_parameters", "3986 §3.3", "/..;x/etc"sv, "400 above_root"},
    {"parameters_and_backslash", "3986 §3.3", "/api/a;b\\c"sv, "400 ambiguous"},
};

}  // namespace dpa::wire
