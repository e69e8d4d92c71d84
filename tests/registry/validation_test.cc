// Goal: the grammars of names, versions, paths and URLs are exactly what the headers say. Method: tables of good and
// bad.

#include "registry/validation.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "registry/manifest.h"

namespace dpa {
namespace {

TEST(Validation, KnowsApiVersions) {
  for (const char* good : {"v1", "v0", "v2", "v10", "v0alpha1", "v1beta2", "v1alpha12"})
    EXPECT_TRUE(IsApiVersion(good)) << good;
  for (const char* bad : {"", "v", "1", "V1", "v01", "v1alpha", "v1alpha0", "v1alpha01", "v1gamma1", "v1beta1x", "v1.2",
                          "v-1", "v1 ", "alpha1"}) {
    EXPECT_FALSE(IsApiVersion(bad)) << bad;
  }
}

TEST(Validation, KnowsDnsSubdomains) {
  for (const char* good : {"a", "a.b", "prometheus.grafana.app", "a-b.c1", "0x.y"})
    EXPECT_TRUE(IsDnsSubdomain(good)) << good;
  for (const char* bad : {"", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "A", "a_b", "a b", "a/b", "{a}", "ä"}) {
    EXPECT_FALSE(IsDnsSubdomain(bad)) << bad;
  }
  EXPECT_TRUE(IsDnsSubdomain(std::string(63, 'a')));
  EXPECT_FALSE(IsDnsSubdomain(std::string(64, 'a')));
  std::string longest;
  for (int i = 0; i < 127; ++i) longest += "a.";
  EXPECT_EQ(longest.size(), 254u);
  EXPECT_TRUE(IsDnsSubdomain(longest.substr(0, 253)));
  EXPECT_FALSE(IsDnsSubdomain(longest + "a"));
}

TEST(Validation, KnowsRoutePaths) {
  for (const char* good : {"/a", "/a/b-c_d.e~f", "/{id}", "/a/{id}/b/{other}", "/a/{rest...}", "/{rest...}", "/a%20b",
                           "/%7Ea", "/a:b@c", "/{a_1}/{b}/{c}/{d}/{e}/{f}/{g}", "/...", "/.well-known"}) {
    const auto checked = CheckRoutePath(good);
    EXPECT_TRUE(checked.has_value()) << good << ": " << (checked ? "" : checked.error());
  }
  const std::vector<std::pair<const char*, const char*>> bad = {
      {"a", R"(must begin with '/', not "a")"},
      {"/", "must not have an empty segment or end in a slash"},
      {"/a/", "must not have an empty segment or end in a slash"},
      {"//a", "must not have an empty segment or end in a slash"},
      {"/a/./b", "must not have '.' or '..' segments"},
      {"/..", "must not have '.' or '..' segments"},
      {"/%2e%2E/b", "must not have '.' or '..' segments"},
      {"/a{b}", R"(the segment "a{b}" must be a literal or a whole {name})"},
      {"/{a", R"(the segment "{a" must be a literal or a whole {name})"},
      {"/a}", R"(the segment "a}" must be a literal or a whole {name})"},
      {"/{", R"(the segment "{" must be a literal or a whole {name})"},
      {"/{a}{b}", R"(the name in "{a}{b}" must be letters, digits and '_', not starting with a digit)"},
      {"/{}", R"(the name in "{}" must be letters, digits and '_', not starting with a digit)"},
      {"/{...}", R"(the name in "{...}" must be letters, digits and '_', not starting with a digit)"},
      {"/{1a}", R"(the name in "{1a}" must be letters, digits and '_', not starting with a digit)"},
      {"/{a-b}", R"(the name in "{a-b}" must be letters, digits and '_', not starting with a digit)"},
      {"/a/{$}", "{$} is not supported: a path must not end in a slash"},
      {"/{a...}/b", R"("{a...}" must be the last segment)"},
      {"/{a}/{a}", R"(has the name "a" twice)"},
      {"/{ns}", "the name in {ns} is taken: it is the namespace before the path"},
      {"/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}", "has more than 7 names in braces"},
      {"/a?b=c", "must be a path alone, without '?'"},
      {"/a#b", "must be a path alone, without '#'"},
      {"/a b", R"(the segment "a b" has a character that must be percent-encoded in a URL)"},
      {"/a%2Fb", R"(the segment "a%2Fb" has a ';' or an encoded separator or NUL, which servers read differently)"},
      {"/a;b", R"(the segment "a;b" has a ';' or an encoded separator or NUL, which servers read differently)"},
      {"/%2", R"(the segment "%2" has a character that must be percent-encoded in a URL)"},
      {"/%zz", R"(the segment "%zz" has a character that must be percent-encoded in a URL)"},
      {"/ä", R"(the segment "ä" has a character that must be percent-encoded in a URL)"},
  };
  for (const auto& [path, error] : bad) {
    const auto checked = CheckRoutePath(path);
    ASSERT_FALSE(checked.has_value()) << path;
    EXPECT_EQ(checked.error(), error) << path;
  }
}

TEST(Validation, KnowsBaseUrls) {
  for (const char* good : {"http://localhost:8080", "https://api.example.com", "http://10.0.0.1:1/base/path",
                           "http://[::1]:80", "http://h/", "unix:/run/x.sock", "unix:x.sock", "http://h:65535"}) {
    const auto checked = CheckBaseUrl(good);
    EXPECT_TRUE(checked.has_value()) << good << ": " << (checked ? "" : checked.error());
  }
  const std::vector<std::pair<std::string, const char*>> bad = {
      {"ftp://h", R"(must be http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH] or unix:PATH, not "ftp://h")"},
      {"localhost:80",
       R"(must be http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH] or unix:PATH, not "localhost:80")"},
      {"http://", R"(the host "" must be a name or an address)"},
      {"http://:80", R"(the host "" must be a name or an address)"},
      {"http://a b", R"(the host "a b" must be a name or an address)"},
      {"http://u:p@h", "must not hold a user or password"},
      {"http://h:0", R"(the port "0" must be a number from 1 to 65535)"},
      {"http://h:", R"(the port "" must be a number from 1 to 65535)"},
      {"http://h:65536", R"(the port "65536" must be a number from 1 to 65535)"},
      {"http://h:8o", R"(the port "8o" must be a number from 1 to 65535)"},
      {"http://[::1", "the IPv6 address must end with ']'"},
      {"http://[x]:1", R"("x" is no IPv6 address)"},
      {"http://[::1]x", R"("x" after the host is not understood)"},
      {"http://h?a=b", "must not have a query or fragment"},
      {"http://h/p#f", "must not have a query or fragment"},
      {"http://h/a b", R"(the segment "a b" has a character that must be percent-encoded in a URL)"},
      {"http://h/../x", "must not have '.' or '..' segments"},
      {"unix:", "the socket's path must have 1 to 107 bytes"},
      {"unix:" + std::string(108, 'x'), "the socket's path must have 1 to 107 bytes"},
  };
  for (const auto& [url, error] : bad) {
    const auto checked = CheckBaseUrl(url);
    ASSERT_FALSE(checked.has_value()) << url;
    EXPECT_EQ(checked.error(), error) << url;
  }
}

std::vector<std::string> Complaints(const std::string& spec, const std::string& name = "v1.g") {
  Manifests manifests;
  ParseManifest("{apiVersion: aggregation.grafana.app/v0alpha1, kind: DataPlaneService, metadata: {name: " + name +
                    "}, spec: {" + spec + "}}",
                "", {}, manifests);
  ValidateServices(manifests.services, manifests.problems);
  std::vector<std::string> lines;
  for (const Problem& problem : manifests.problems) lines.push_back(problem.field + ": " + problem.message);
  return lines;
}

using Strings = std::vector<std::string>;

TEST(Validation, NeedsNoPluginForAnHttpBackend) {
  EXPECT_EQ(
      Complaints("group: g, version: v1, backend: {type: http, baseURL: 'http://h:1'}, services: [{type: route}]"),
      Strings{});
  EXPECT_EQ(Complaints("pluginID: p, pluginType: app, group: g, version: v1, backend: {type: plugin}"), Strings{});
}

TEST(Validation, RefusesContradictoryBackends) {
  const std::string gv = "group: g, version: v1, ";
  EXPECT_EQ(Complaints(gv + "backend: {type: http}"), Strings{"spec.backend.baseURL: is required"});
  EXPECT_EQ(Complaints(gv + "pluginID: p, pluginType: app, backend: {}"), Strings{"spec.backend.type: is required"});
  EXPECT_EQ(Complaints(gv + "pluginID: p, pluginType: app, backend: {type: grpc}"),
            Strings{"spec.backend.type: must be one of plugin, http, not \"grpc\""});
  EXPECT_EQ(Complaints(gv + "pluginID: p, pluginType: app, backend: {type: plugin, baseURL: 'http://h'}"),
            Strings{"spec.backend.baseURL: is only for a backend of type http"});
  EXPECT_EQ(Complaints(gv + "backend: {type: http, baseURL: 'http://h'}, services: [{type: query}]"),
            Strings{"spec.services[0].type: an HTTP backend serves type route only; \"query\" needs a plugin"});
}

TEST(Validation, RefusesTheRegistrysOwnGroup) {
  EXPECT_EQ(Complaints("pluginID: p, pluginType: app, group: aggregation.grafana.app, version: v1",
                       "v1.aggregation.grafana.app"),
            Strings{"spec.group: must not be aggregation.grafana.app: that is the registry's own group"});
}

TEST(Validation, TakesTheSamePathForAnotherMethod) {
  const std::string plugin = "pluginID: p, pluginType: app, group: g, version: v1, services: ";
  EXPECT_EQ(Complaints(plugin + "[{type: route, method: GET, path: /a}, {type: route, method: PUT, path: /a}, "
                                "{type: route, path: /a}, {type: route}, {type: route, method: GET}]"),
            Strings{});
  EXPECT_EQ(Complaints(plugin + "[{type: route}, {type: route}]").size(), 1u);
  EXPECT_EQ(Complaints(plugin + "[{type: route, path: '/{a}'}, {type: route, path: '/{a...}'}]"), Strings{});
  EXPECT_EQ(Complaints(plugin + "[{type: route, path: '/{a...}'}, {type: route, path: '/{b...}'}]").size(), 1u);
}

}  // namespace
}  // namespace dpa
