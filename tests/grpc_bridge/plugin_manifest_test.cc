// Goal: plugins are found where Grafana finds them, and whatever is wrong with a plugin.json is said with file, line or
// field. Method: folders made for the test.

#include "grpc_bridge/plugin_manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>

#include "tests/support/temp_dir.h"

namespace dpa {
namespace {

using ::testing::HasSubstr;

std::string Manifest(const std::string& id, const std::string& more = R"("backend":true,"executable":"gpx_x",)") {
  return R"({"type":"datasource","name":"X","id":")" + id + "\"," + more +
         R"("info":{"version":"1.2.3"},"dependencies":{"grafanaDependency":">=10"}})";
}

std::vector<std::string> IdsOf(const PluginScan& scan) {
  std::vector<std::string> ids;
  for (const auto& plugin : scan.plugins) ids.push_back(plugin.id);
  return ids;
}

TEST(PluginManifest, BundledPluginIsValid) {
  const PluginScan scan = FindPlugins({DPA_SOURCE_DIR "/tools/testdata_plugin"});
  ASSERT_TRUE(scan.problems.empty()) << scan.problems[0].what;
  ASSERT_EQ(IdsOf(scan), std::vector<std::string>{"dpa-testdata-datasource"});
  EXPECT_EQ(scan.plugins[0].version, "1.0.0");
  EXPECT_THAT(scan.plugins[0].executable_path, HasSubstr("/gpx_testdata_linux_"));
}

TEST(PluginManifest, FoundInFoldersDistFoldersAndNested) {
  const TempDir dir;
  dir.Write("b/plugin.json", Manifest("b-x-datasource"));
  dir.Write("a/dist/plugin.json", Manifest("a-x-app"));
  dir.Write("a/plugin.json", Manifest("source-x-app"));  // Hidden by dist.
  dir.Write("a/dist/child/plugin.json", Manifest("child-x-datasource", R"("backend":true,"executable":"../gpx_x",)"));
  dir.Write("group/c/plugin.json", Manifest("c-datasource"));
  dir.Write("panel/plugin.json", Manifest("p-x-panel", ""));  // No backend.
  dir.Write(".git/plugin.json", Manifest("git-x-datasource"));
  std::filesystem::create_directory_symlink(dir.path(), dir.path() + "/group/loop");
  const PluginScan scan = FindPlugins({dir.path()});
  EXPECT_TRUE(scan.problems.empty());
  EXPECT_EQ(IdsOf(scan), (std::vector<std::string>{"a-x-app", "b-x-datasource", "c-datasource", "child-x-datasource"}));
  EXPECT_EQ(scan.plugins[3].executable_path, dir.path() + "/a/dist/gpx_x_" + std::string(GoPlatform()));
}

TEST(PluginManifest, TakenIdIsAProblemThatNamesBothFiles) {
  const TempDir dir;
  dir.Write("one/plugin.json", Manifest("a-x-datasource"));
  dir.Write("two/plugin.json", Manifest("a-x-datasource"));
  const PluginScan scan = FindPlugins({dir.path()});
  ASSERT_EQ(scan.plugins.size(), 1u);
  ASSERT_EQ(scan.problems.size(), 1u);
  EXPECT_THAT(scan.problems[0].file, HasSubstr("/two/"));
  EXPECT_THAT(scan.problems[0].what, HasSubstr("/one/plugin.json"));
}

TEST(PluginManifest, MissingDirectoryIsAProblem) {
  const TempDir dir;
  const PluginScan scan = FindPlugins({dir.path() + "/none"});
  ASSERT_EQ(scan.problems.size(), 1u);
  EXPECT_THAT(scan.problems[0].what, HasSubstr("No such file or directory"));
}

TEST(PluginManifest, WrongOnesAreRefusedByLineOrField) {
  const std::pair<std::string, const char*> rows[] = {
      {"", "line 1: not valid JSON"},
      {"{\n\n  \"id\": oops}", "line 3: not valid JSON"},
      {"[]", "not a JSON object"},
      {R"({"type":"datasource","name":"X"})", "field id is missing"},
      {R"({"type":"datasource","name":"X","id":7})", "field id must be a string"},
      {Manifest("Upper-Case-datasource"), "field id is \"Upper-Case-datasource\""},
      {Manifest("a-b-c-datasource"), "field id"},
      {Manifest("datasource"), "field id"},
      {Manifest("a-x-datasource", R"("backend":"yes",)"), "field backend must be true or false"},
      {Manifest("a-x-datasource", R"("backend":true,)"), "field executable is missing"},
      {R"({"type":"thing","name":"X","id":"a-x-datasource"})", "field type is \"thing\""},
      {R"({"type":"app","name":"X","id":"a-x-app","info":{}})", "field info.version is missing"},
      {R"({"type":"app","name":"X","id":"a-x-app","info":{"version":"1"},"dependencies":1})",
       "field dependencies must be an object"},
  };
  for (const auto& [text, words] : rows) {
    const auto manifest = ParsePluginManifest(text, "plugin.json");
    ASSERT_FALSE(manifest.has_value()) << text;
    EXPECT_THAT(manifest.error(), HasSubstr(words));
  }
}

TEST(PluginManifest, ExecutableIsCheckedInWords) {
  const TempDir dir;
  PluginManifest manifest{.executable_path = dir.path() + "/gpx"};
  EXPECT_THAT(CheckExecutable(manifest), HasSubstr("No such file"));
  dir.Write("gpx", "");
  if (geteuid() != 0) EXPECT_THAT(CheckExecutable(manifest), HasSubstr("Permission denied"));
  manifest.executable_path = dir.path();
  EXPECT_THAT(CheckExecutable(manifest), HasSubstr("not a file"));
}

}  // namespace
}  // namespace dpa
