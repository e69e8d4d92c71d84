// Goal: each service type answers exactly its paths, and everything beside them stays with the delegate. Method:
// compile manifests, match requests.

#include "registry/route_compiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "registry/manifest.h"
#include "registry/validation.h"

namespace dpa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const RouteSupport kEverything = {
    {ServiceType::kQuery, ServiceType::kRoute, ServiceType::kResource, ServiceType::kHealth, ServiceType::kStream,
     ServiceType::kAdmission, ServiceType::kConversion, ServiceType::kDatasourceProxy},
    true};

// `services` and `backend` are YAML flow text.
CompiledRoutes Compile(const std::string& services, const RouteSupport& support = kEverything,
                       const std::string& plugin = "pluginID: p-app, pluginType: app") {
  Manifests manifests;
  ParseManifest(
      "{apiVersion: aggregation.grafana.app/v0alpha1, kind: DataPlaneService, metadata: {name: v1.g.example}, spec: {" +
          plugin + ", group: g.example, version: v1, services: " + services + "}}",
      "a.yaml", {}, manifests);
  ValidateServices(manifests.services, manifests.problems);
  EXPECT_TRUE(manifests.problems.empty()) << ToString(manifests.problems.at(0));
  return CompileRoutes(manifests.services, support);
}

// "type capture=value …" of what answers, or "delegate".
std::string Answer(const RouteTable& table, std::string_view method, std::string_view path) {
  RouteMatch match;
  table.Match(method, path, match);
  if (match.target == nullptr) return "delegate";
  std::string text(ToString(match.target->type));
  for (uint8_t i = 0; i < match.captures_count; ++i) {
    text += " " + std::string(match.captures[i].name) + "=" + std::string(match.captures[i].value);
  }
  return text;
}

struct Row {
  const char* services;
  const char* method;
  const char* path;
  const char* answer;
};

TEST(RouteCompiler, EachTypeAnswersItsPaths) {
  const std::vector<Row> rows = {
      {"[{type: query}]", "POST", "/apis/g.example/v1/namespaces/n/datasources/u/query", "query ns=n uid=u"},
      {"[{type: query}]", "POST", "/apis/g.example/v1/namespaces/n/connections/u/query", "query ns=n uid=u"},
      {"[{type: query}]", "GET", "/apis/g.example/v1/namespaces/n/connections/u/query", "query ns=n uid=u"},
      {"[{type: query}]", "POST", "/apis/g.example/v1/namespaces/n/datasources/a%2Fb/query", "query ns=n uid=a%2Fb"},
      {"[{type: query}]", "POST", "/apis/g.example/v1/namespaces/n/datasources/u/query/", "delegate"},
      {"[{type: query}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u", "delegate"},
      {"[{type: query}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/health", "delegate"},
      {"[{type: query}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/resources", "delegate"},
      {"[{type: query}]", "GET", "/apis/g.example/v1", "delegate"},
      {"[{type: query}]", "POST", "/apis/g.example/v2/namespaces/n/datasources/u/query", "delegate"},
      {"[{type: query}]", "POST", "/apis/other/v1/namespaces/n/datasources/u/query", "delegate"},
      {"[{type: route}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/resources", "resource ns=n uid=u"},
      {"[{type: route}]", "PUT", "/apis/g.example/v1/namespaces/n/connections/u/resources", "resource ns=n uid=u"},
      {"[{type: route}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/resources/a/b",
       "resource ns=n uid=u path=a/b"},
      {"[{type: route}]", "GET", "/apis/g.example/v1/namespaces/n/connections/u/resources/",
       "resource ns=n uid=u path="},
      {"[{type: route, method: GET}]", "POST", "/apis/g.example/v1/namespaces/n/connections/u/resources/a", "delegate"},
      {"[{type: route, path: '/things/{id}'}]", "PATCH", "/apis/g.example/v1/namespaces/n/things/7", "route ns=n id=7"},
      {"[{type: route, path: '/things/{id}'}]", "GET", "/apis/g.example/v1/namespaces/n/things", "delegate"},
      {"[{type: route, path: '/things/{id}'}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/resources",
       "delegate"},
      {"[{type: route, method: GET, path: /foo}]", "GET", "/apis/g.example/v1/namespaces/n/foo", "route ns=n"},
      {"[{type: route, method: GET, path: /foo}]", "HEAD", "/apis/g.example/v1/namespaces/n/foo", "route ns=n"},
      {"[{type: route, method: GET, path: /foo}]", "POST", "/apis/g.example/v1/namespaces/n/foo", "delegate"},
      {"[{type: route, method: GET, path: /foo}]", "GET", "/apis/g.example/v1/namespaces/n/foo/bar", "delegate"},
      {"[{type: route, path: '/files/{rest...}'}]", "GET", "/apis/g.example/v1/namespaces/n/files/a/b",
       "route ns=n rest=a/b"},
      {"[{type: health}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/health", "health ns=n uid=u"},
      {"[{type: health}]", "GET", "/apis/g.example/v1/namespaces/n/connections/u/health", "health ns=n uid=u"},
      {"[{type: stream}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/stream/a/b",
       "stream ns=n uid=u path=a/b"},
      {"[{type: stream}]", "POST", "/apis/g.example/v1/namespaces/n/connections/u/stream/a",
       "stream ns=n uid=u path=a"},
      {"[{type: stream}]", "GET", "/apis/g.example/v1/namespaces/n/connections/u/stream", "delegate"},
      {"[{type: datasource-proxy}]", "GET", "/apis/g.example/v1/namespaces/n/datasources/u/proxy",
       "datasource-proxy ns=n uid=u"},
      {"[{type: datsource-proxy}]", "PUT", "/apis/g.example/v1/namespaces/n/connections/u/proxy/a",
       "datasource-proxy ns=n uid=u path=a"},
      {"[{type: admission}]", "POST", "/apis/g.example/v1/admission/mutate", "admission"},
      {"[{type: admission}]", "POST", "/apis/g.example/v1/admission/validate", "admission"},
      {"[{type: admission}]", "POST", "/apis/g.example/v1/admission", "delegate"},
      {"[{type: conversion}]", "POST", "/apis/g.example/v1/conversion", "conversion"},
      {"[]", "POST", "/apis/g.example/v1/conversion", "delegate"},
  };
  for (const Row& row : rows) {
    const CompiledRoutes compiled = Compile(row.services);
    EXPECT_THAT(compiled.problems, IsEmpty());
    EXPECT_THAT(compiled.warnings, IsEmpty());
    EXPECT_EQ(Answer(compiled.table, row.method, row.path), row.answer)
        << row.services << " " << row.method << " " << row.path;
  }
}

TEST(RouteCompiler, TheTargetNamesTheServiceAndItsBackend) {
  const CompiledRoutes plugin = Compile("[{type: route, path: '/a/{b}'}]");
  RouteMatch match;
  plugin.table.Match("GET", "/apis/g.example/v1/namespaces/n/a/x", match);
  ASSERT_NE(match.target, nullptr);
  EXPECT_EQ(match.target->service_name, "v1.g.example");
  EXPECT_EQ(match.target->group, "g.example");
  EXPECT_EQ(match.target->version, "v1");
  EXPECT_EQ(match.target->plugin_id, "p-app");
  EXPECT_EQ(match.target->plugin_type, "app");
  EXPECT_EQ(match.target->backend_url, "");
  EXPECT_EQ(match.target->path, "/a/{b}");

  const CompiledRoutes http =
      Compile("[{type: route, path: /a}]", kEverything, "backend: {type: http, baseURL: 'http://h:1'}");
  http.table.Match("GET", "/apis/g.example/v1/namespaces/n/a", match);
  ASSERT_NE(match.target, nullptr);
  EXPECT_EQ(match.target->backend_url, "http://h:1");
  EXPECT_EQ(match.target->plugin_id, "");
}

std::vector<std::string> Lines(const std::vector<Problem>& problems) {
  std::vector<std::string> lines;
  for (const Problem& problem : problems) lines.push_back(problem.field + ": " + problem.message);
  return lines;
}

TEST(RouteCompiler, WhatIsNotImplementedGoesToTheDelegateWithAWarning) {
  const RouteSupport query_only = {{ServiceType::kQuery}, false};
  const CompiledRoutes compiled =
      Compile("[{type: query}, {type: route}, {type: route, path: /a}, {type: datsource-proxy}]", query_only);
  EXPECT_THAT(compiled.problems, IsEmpty());
  EXPECT_THAT(
      Lines(compiled.warnings),
      ElementsAre(
          "spec.services[1]: type route without a path is not implemented in this build; its requests go to the "
          "delegate",
          "spec.services[2]: type route is not implemented in this build; its requests go to the delegate",
          "spec.services[3]: type datsource-proxy is not implemented in this build; its requests go to the delegate"));
  EXPECT_EQ(Answer(compiled.table, "GET", "/apis/g.example/v1/namespaces/n/a"), "delegate");
  EXPECT_EQ(Answer(compiled.table, "GET", "/apis/g.example/v1/namespaces/n/datasources/u/proxy"), "delegate");
  EXPECT_EQ(Answer(compiled.table, "POST", "/apis/g.example/v1/namespaces/n/datasources/u/query"), "query ns=n uid=u");

  const CompiledRoutes http = Compile("[{type: route, path: /a}]", {{ServiceType::kRoute}, false},
                                      "backend: {type: http, baseURL: 'http://h:1'}");
  EXPECT_THAT(Lines(http.warnings), ElementsAre("spec.services[0]: a backend of type http is not implemented in this "
                                                "build; its requests go to the delegate"));
  EXPECT_EQ(Answer(http.table, "GET", "/apis/g.example/v1/namespaces/n/a"), "delegate");
}

TEST(RouteCompiler, ARouteThatSpellsAnotherTypesPathIsAProblem) {
  const CompiledRoutes compiled = Compile("[{type: query}, {type: route, path: '/datasources/{id}/query'}]");
  ASSERT_EQ(compiled.problems.size(), 1u);
  EXPECT_EQ(compiled.problems[0].file, "a.yaml");
  EXPECT_EQ(compiled.problems[0].line, 1);
  EXPECT_EQ(compiled.problems[0].field, "spec.services[1]");
  EXPECT_THAT(compiled.problems[0].message, ::testing::HasSubstr("v1.g.example"));
}

TEST(RouteCompiler, APathThatTheTableCannotHoldIsAProblem) {
  std::string path;
  for (int i = 0; i < 100; ++i) path += "/s";
  const CompiledRoutes compiled = Compile("[{type: route, path: " + path + "}]");
  ASSERT_EQ(compiled.problems.size(), 1u);
  EXPECT_EQ(compiled.problems[0].field, "spec.services[0]");
  EXPECT_THAT(compiled.problems[0].message, ::testing::HasSubstr("segments"));
}

}  // namespace
}  // namespace dpa
