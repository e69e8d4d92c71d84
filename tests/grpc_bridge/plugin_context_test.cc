// Goal: what plugins are told about data source, organisation and host. Method: append, parse with the generated class,
// compare.

#include "grpc_bridge/plugin_context.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "grpc_bridge/proto/pluginv2.pb.h"

namespace dpa {
namespace {

DataSource Sample() {
  DataSource source;
  source.org_id = 1;
  source.uid = "u1";
  source.name = "Metrics";
  source.type = "testds";
  source.url = "http://backend:9090";
  source.user = "ada";
  source.database = "db";
  source.basic_auth = true;
  source.basic_auth_user = "bob";
  source.json_data = R"({"timeout":30})";
  source.secure_json_data = {{"password", "p\xFFw"}, {"basicAuthPassword", "secret"}};
  return source;
}

std::shared_ptr<const DataSourceSet> SetOf(DataSource source) {
  return std::make_shared<const DataSourceSet>(std::vector{std::move(source)}, nullptr);
}

PluginDirectory Directory() {
  PluginDirectory directory;
  directory.plugins.push_back({.id = "testds", .type = "datasource", .version = "1.2.3"});
  return directory;
}

pluginv2::PluginContext Parsed(const std::string& field) {
  pluginv2::QueryDataRequest request;
  EXPECT_TRUE(request.ParseFromString(field));
  return request.plugincontext();
}

TEST(PluginContext, CarriesTheSettingsOfTheDataSource) {
  auto sources = SetOf(Sample());
  PluginContextOptions options{.grafana_version = "12.1.0", .grafana_config = DefaultGrafanaConfig()};
  PluginContexts contexts(sources, Directory(), options);
  const PluginContextEntry* entry = contexts.Find(1, "u1");
  ASSERT_NE(entry, nullptr);
  std::string bytes;
  AppendPluginContext(*entry, "default", nullptr, bytes);
  auto context = Parsed(bytes);
  EXPECT_EQ(context.orgid(), 1);
  EXPECT_EQ(context.pluginid(), "testds");
  EXPECT_EQ(context.pluginversion(), "1.2.3");
  EXPECT_EQ(context.namespace_(), "default");
  EXPECT_FALSE(context.has_user());
  EXPECT_FALSE(context.has_appinstancesettings());
  EXPECT_EQ(context.grafanaconfig().at("GF_SQL_ROW_LIMIT"), "1000000");
  EXPECT_TRUE(std::regex_match(
      context.useragent(),
      std::regex(R"(^Grafana/([0-9]+\.[0-9]+\.[0-9]+(?:[^\s]+)?) \(([a-zA-Z0-9]+); ([a-zA-Z0-9]+)\)$)")));
  const auto& settings = context.datasourceinstancesettings();
  EXPECT_EQ(settings.id(), entry->source->id);
  EXPECT_EQ(settings.name(), "Metrics");
  EXPECT_EQ(settings.url(), "http://backend:9090");
  EXPECT_EQ(settings.user(), "ada");
  EXPECT_EQ(settings.database(), "db");
  EXPECT_TRUE(settings.basicauthenabled());
  EXPECT_EQ(settings.basicauthuser(), "bob");
  EXPECT_EQ(settings.jsondata(), R"({"timeout":30})");
  EXPECT_EQ(settings.lastupdatedms(), entry->source->last_updated_ms);
  EXPECT_EQ(settings.uid(), "u1");
  EXPECT_EQ(settings.decryptedsecurejsondata().at("basicAuthPassword"), "secret");
  EXPECT_EQ(settings.decryptedsecurejsondata().at("password"), "p\xEF\xBF\xBDw")
      << "invalid UTF-8 must not reach protobuf";
}

TEST(PluginContext, IsByteStable) {
  PluginContextOptions options{.grafana_config = DefaultGrafanaConfig()};
  std::string first;
  std::string second;
  PluginContexts a(SetOf(Sample()), Directory(), options);
  PluginContexts b(SetOf(Sample()), Directory(), options);
  AppendPluginContext(*a.Find(1, "u1"), "default", nullptr, first);
  AppendPluginContext(*b.Find(1, "u1"), "default", nullptr, second);
  EXPECT_EQ(first, second);
}

TEST(PluginContext, AddsUserAndRepairsForeignText) {
  PluginContexts contexts(SetOf(Sample()), Directory(), {});
  PluginUser user{.login = "ada", .name = "Ada L.", .email = "a@example.com", .role = "Viewer"};
  std::string bytes = "prefix";
  AppendPluginContext(*contexts.Find(1, "u1"), "stacks-7", &user, bytes);
  auto context = Parsed(bytes.substr(6));
  EXPECT_EQ(context.user().login(), "ada");
  EXPECT_EQ(context.user().role(), "Viewer");
  EXPECT_EQ(context.namespace_(), "stacks-7");
  user.name = "A\x80";
  bytes.clear();
  AppendPluginContext(*contexts.Find(1, "u1"), "n\xC0", &user, bytes);
  context = Parsed(bytes);
  EXPECT_EQ(context.user().name(), "A\xEF\xBF\xBD");
  EXPECT_EQ(context.namespace_(), "n\xEF\xBF\xBD");
}

TEST(PluginContext, EmptyUserIsStillAUser) {
  PluginContexts contexts(SetOf(Sample()), Directory(), {});
  PluginUser user;
  std::string bytes;
  AppendPluginContext(*contexts.Find(1, "u1"), "default", &user, bytes);
  EXPECT_TRUE(Parsed(bytes).has_user());
}

TEST(PluginContext, WithoutDataSource) {
  std::string bytes;
  AppendPluginContext("app", "2.0.0", 3, "org-3", {.grafana_config = DefaultGrafanaConfig()}, bytes);
  auto context = Parsed(bytes);
  EXPECT_EQ(context.pluginid(), "app");
  EXPECT_EQ(context.orgid(), 3);
  EXPECT_FALSE(context.has_datasourceinstancesettings());
  EXPECT_EQ(context.grafanaconfig_size(), 4);
}

TEST(PluginContext, FindIsByOrganisationAndUid) {
  PluginContexts contexts(SetOf(Sample()), PluginDirectory{}, {});
  EXPECT_NE(contexts.Find(1, "u1"), nullptr);
  EXPECT_EQ(contexts.Find(2, "u1"), nullptr);
  EXPECT_EQ(contexts.Find(1, "u"), nullptr);
  EXPECT_EQ(PluginContexts().Find(1, "u1"), nullptr);
}

TEST(Namespace, MapsToOrganisation) {
  EXPECT_EQ(ParseNamespace("default")->org_id, 1);
  EXPECT_EQ(ParseNamespace("org-2")->org_id, 2);
  EXPECT_EQ(ParseNamespace("stacks-11")->org_id, 1);
  EXPECT_EQ(ParseNamespace("stacks-11")->stack_id, 11);
  EXPECT_EQ(ParseNamespace("stack-11")->stack_id, 11);
  EXPECT_EQ(ParseNamespace("org-1").error(), "use the namespace \"default\" for organisation 1");
  for (const char* name : {"org-", "org-0", "org--2", "org-x", "org-2x", "org-02", "org-9223372036854775808"}) {
    ASSERT_FALSE(ParseNamespace(name)) << name;
    EXPECT_EQ(ParseNamespace(name).error(), "invalid org id in namespace: expected org-N with N from 2") << name;
  }
  EXPECT_FALSE(ParseNamespace("stacks-"));
  EXPECT_FALSE(ParseNamespace(""));
  EXPECT_FALSE(ParseNamespace("kube-system"));
}

TEST(UserAgent, TakesOnlyVersionsThatTheSdkAccepts) {
  EXPECT_TRUE(GrafanaUserAgent("13.0.1")->starts_with("Grafana/13.0.1 (linux; "));
  EXPECT_TRUE(GrafanaUserAgent("13.0.1-pre+1"));
  for (const char* version : {"", "13", "13.0", "13.0.", "v13.0.1", "13.0.1 beta", "13.0.1\n"}) {
    EXPECT_FALSE(GrafanaUserAgent(version)) << version;
  }
}

}  // namespace
}  // namespace dpa
