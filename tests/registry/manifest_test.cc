// Goal: a manifest that kubectl would take is taken, and for one that is wrong the user is told the file, the line, the
// field and what to write, for everything that is wrong. Method: tables of texts with the exact lines that they cause.

#include "registry/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "registry/validation.h"

namespace dpa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::string_view kGood = R"(apiVersion: aggregation.grafana.app/v0alpha1
kind: DataPlaneService
metadata:
  name: v0alpha1.prometheus.grafana.app
  labels:
    team: "metrics"
  annotations:
    note: 'a: b'
spec:
  pluginID: prometheus
  pluginType: datasource
  group: prometheus.grafana.app
  version: v0alpha1
  services:
    - type: query
    - type: route
      method: GET
      path: /things/{id}
)";

Manifests Parse(std::string_view text, const ManifestLimits& limits = {}) {
  Manifests out;
  ParseManifest(text, "a.yaml", limits, out);
  return out;
}

std::vector<std::string> Lines(const std::vector<Problem>& problems) {
  std::vector<std::string> lines;
  for (const Problem& problem : problems) lines.push_back(ToString(problem));
  return lines;
}

// Everything that reading and validation say about `text`.
std::vector<std::string> Complaints(std::string_view text) {
  Manifests manifests = Parse(text);
  ValidateServices(manifests.services, manifests.problems);
  return Lines(manifests.problems);
}

// kGood with `from` replaced by `to`.
std::string With(std::string_view from, std::string_view to) {
  std::string text(kGood);
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Manifest, ReadsAnObjectWithItsPositions) {
  const Manifests manifests = Parse(kGood);
  EXPECT_THAT(Lines(manifests.problems), IsEmpty());
  ASSERT_EQ(manifests.services.size(), 1u);
  const DataPlaneService& service = manifests.services[0];
  EXPECT_EQ(service.file, "a.yaml");
  EXPECT_EQ(service.name.value, "v0alpha1.prometheus.grafana.app");
  EXPECT_EQ(service.name.at, (SourcePosition{4, 9}));
  EXPECT_THAT(service.labels, ElementsAre(std::pair("team", "metrics")));
  EXPECT_THAT(service.annotations, ElementsAre(std::pair("note", "a: b")));
  EXPECT_EQ(service.plugin_id.value, "prometheus");
  EXPECT_EQ(service.plugin_type.value, "datasource");
  EXPECT_EQ(service.group.value, "prometheus.grafana.app");
  EXPECT_EQ(service.version.at, (SourcePosition{13, 12}));
  ASSERT_EQ(service.services.size(), 2u);
  EXPECT_EQ(service.services[0].type.value, "query");
  EXPECT_FALSE(service.services[0].path.present);
  EXPECT_EQ(service.services[1].path.value, "/things/{id}");
  EXPECT_EQ(service.services[1].path.at, (SourcePosition{18, 13}));
  EXPECT_THAT(Complaints(kGood), IsEmpty());
}

TEST(Manifest, ReadsTheSameObjectFromJson) {
  const Manifests manifests = Parse(
      "{\n\t\"apiVersion\":\"aggregation.grafana.app/v0alpha1\",\"kind\":\"DataPlaneService\",\n"
      "\t\"metadata\":{\"name\":\"v1.g\",\"annotations\":{\"face\":\"\\ud83d\\ude00 \\u00e4 \\/\"}},\n"
      "\t\"spec\":{\"pluginID\":\"p\",\"pluginType\":\"app\",\"group\":\"g\",\"version\":\"v1\",\"services\":null}}\n");
  EXPECT_THAT(Lines(manifests.problems), IsEmpty());
  ASSERT_EQ(manifests.services.size(), 1u);
  EXPECT_EQ(manifests.services[0].group.value, "g");
  EXPECT_EQ(manifests.services[0].annotations.at("face"), "😀 ä /");
  EXPECT_EQ(manifests.services[0].group.at.line, 4);
}

TEST(Manifest, ReadsSeveralDocumentsAndSkipsEmptyOnes) {
  const std::string text = "---\n# nothing\n---\n" + std::string(kGood) + "---\n" + std::string(kGood) + "---\n";
  EXPECT_EQ(Parse(text).services.size(), 2u);
  EXPECT_THAT(Parse("").services, IsEmpty());
  EXPECT_THAT(Complaints(""), IsEmpty());
  EXPECT_THAT(Complaints("# only a comment\n"), IsEmpty());
}

TEST(Manifest, ReadsListsAsKubectlDoes) {
  const std::string item =
      "{apiVersion: aggregation.grafana.app/v0alpha1, kind: DataPlaneService, metadata: {name: v1.a}, "
      "spec: {pluginID: p, pluginType: app, group: a, version: v1}}";
  EXPECT_EQ(Parse("{apiVersion: v1, kind: List, items: [" + item + ", " + item + "]}").services.size(), 2u);
  // An API server's list leaves the items' own kind out.
  const Manifests typed = Parse(R"(
apiVersion: aggregation.grafana.app/v0alpha1
kind: DataPlaneServiceList
metadata: {resourceVersion: "7"}
items:
- metadata: {name: v1.a}
  spec: {pluginID: p, pluginType: app, group: a, version: v1}
)");
  EXPECT_THAT(Lines(typed.problems), IsEmpty());
  EXPECT_EQ(typed.services.size(), 1u);
  EXPECT_THAT(Complaints("apiVersion: v1\nkind: List\nitems:\n- metadata: {}\n"),
              ElementsAre("a.yaml:4:3: items[0].apiVersion: is required and must be aggregation.grafana.app/v0alpha1",
                          "a.yaml:4:3: items[0].kind: is required and must be DataPlaneService"));
  EXPECT_THAT(Complaints("apiVersion: v2\nkind: List\nitems:\n- 7\n"),
              ElementsAre("a.yaml:1:13: apiVersion: must be v1, not \"v2\"",
                          "a.yaml:4:3: items[0]: must be a DataPlaneService object, not a number"));
}

TEST(Manifest, TakesWhatAnApiServerPrints) {
  EXPECT_THAT(Complaints(std::string(kGood) + "status: {conditions: [{type: Available, status: \"True\"}]}\n"),
              IsEmpty());
  EXPECT_THAT(Complaints(With("  labels:",
                              "  uid: 0b1c\n  resourceVersion: \"12\"\n  generation: 3\n"
                              "  creationTimestamp: 2024-01-01T00:00:00Z\n  managedFields: []\n"
                              "  finalizers: null\n  labels:")),
              IsEmpty());
}

TEST(Manifest, TakesBothSpellingsOfTheProxyAndAnyOrderOfFields) {
  EXPECT_THAT(Complaints(With("type: query", "type: datasource-proxy")), IsEmpty());
  EXPECT_THAT(Complaints(With("type: query", "type: datsource-proxy")), IsEmpty());
  EXPECT_THAT(Complaints(With("- type: query\n", "- type: datsource-proxy\n    - type: datasource-proxy\n")),
              ElementsAre("a.yaml:16:7: spec.services[1]: declares the same type as spec.services[0] in line 15"));
}

TEST(Manifest, SharesAnchoredValues) {
  const Manifests manifests = Parse(With("version: v0alpha1\n", "version: &v v0alpha1\n") + "---\n" +
                                    With("team: \"metrics\"", "team: &t \"x\"\n    other: *t"));
  EXPECT_THAT(Lines(manifests.problems), IsEmpty());
  ASSERT_EQ(manifests.services.size(), 2u);
  EXPECT_EQ(manifests.services[1].labels.at("other"), "x");
}

struct Case {
  const char* what;
  std::string text;
  std::vector<std::string> complaints;
};

TEST(Manifest, SaysWhereAndWhatIsWrong) {
  const std::vector<Case> cases = {
      {"another kind",
       "apiVersion: v1\nkind: ConfigMap\n",
       {"a.yaml:1:13: apiVersion: must be aggregation.grafana.app/v0alpha1, not \"v1\"",
        "a.yaml:2:7: kind: must be DataPlaneService, not \"ConfigMap\""}},
      {"a scalar document", "hello\n", {"a.yaml:1:1: must be a DataPlaneService object, not a string"}},
      {"a list document", "- a\n", {"a.yaml:1:1: must be a DataPlaneService object, not a list"}},
      {"no metadata and spec",
       "apiVersion: aggregation.grafana.app/v0alpha1\nkind: DataPlaneService\n",
       {"a.yaml:1:1: metadata: is required", "a.yaml:1:1: spec: is required"}},
      {"unknown fields",
       With("  pluginID:", "  pluginId: x\n  color: red\n  pluginID:"),
       {"a.yaml:10:3: spec.pluginId: unknown field; did you mean \"pluginID\"?",
        "a.yaml:11:3: spec.color: unknown field"}},
      {"unknown field at the top",
       With("spec:", "specs: {}\nspec:"),
       {"a.yaml:9:1: specs: unknown field; did you mean \"spec\"?"}},
      {"unknown field of a service",
       With("method: GET", "methods: GET"),
       {"a.yaml:17:7: spec.services[1].methods: unknown field; did you mean \"method\"?"}},
      {"a key given twice",
       With("  group:", "  pluginID: other\n  group:"),
       {"a.yaml:12:3: the key \"pluginID\" is given twice in one mapping (first in line 10)"}},
      {"a number as string",
       With("pluginID: prometheus", "pluginID: 7"),
       {"a.yaml:10:13: spec.pluginID: must be a string, but 7 is a number: put it in quotes"}},
      {"a boolean label",
       With("\"metrics\"", "yes"),
       {"a.yaml:6:11: metadata.labels[team]: must be a string, but yes is a boolean: put it in quotes"}},
      {"a mapping as string",
       With("group: prometheus.grafana.app", "group: {a: b}"),
       {"a.yaml:12:10: spec.group: must be a string, not a mapping", "a.yaml:12:10: spec.group: must not be empty"}},
      {"services as mapping",
       With("    - type: query\n    - type: route\n      method: GET\n      path: /things/{id}\n", "    type: query\n"),
       {"a.yaml:15:5: spec.services: must be a list, not a mapping"}},
      {"a service as string",
       With("- type: query", "- query"),
       {"a.yaml:15:7: spec.services[0]: must be a mapping, not a string"}},
      {"a service without type",
       With("- type: route\n      method", "- method"),
       {"a.yaml:16:7: spec.services[1].type: is required"}},
      {"a namespace",
       With("  labels:", "  namespace: default\n  labels:"),
       {"a.yaml:5:14: metadata.namespace: must be left out: a DataPlaneService is cluster-scoped"}},
      {"a merge key",
       With("  pluginID:", "  <<: {a: b}\n  pluginID:"),
       {"a.yaml:10:3: spec.<<: merge keys are not supported; write the fields out"}},
      {"missing fields",
       With("  pluginID: prometheus\n  pluginType: datasource\n", ""),
       {"a.yaml:10:3: spec.pluginID: is required", "a.yaml:10:3: spec.pluginType: is required"}},
      {"a null field", With("pluginID: prometheus", "pluginID: null"), {"a.yaml:10:3: spec.pluginID: is required"}},
      {"an empty field",
       With("pluginID: prometheus", "pluginID: \"\""),
       {"a.yaml:10:13: spec.pluginID: must not be empty"}},
      {"a wrong name",
       With("name: v0alpha1.prometheus", "name: prometheus"),
       {"a.yaml:4:9: metadata.name: must be <version>.<group> of the spec, \"v0alpha1.prometheus.grafana.app\", not "
        "\"prometheus.grafana.app\""}},
      {"an unknown plugin type",
       With("pluginType: datasource", "pluginType: data-source"),
       {"a.yaml:11:15: spec.pluginType: must be one of app, datasource, not \"data-source\"; did you mean "
        "\"datasource\"?"}},
      {"an id with a slash",
       With("pluginID: prometheus", "pluginID: ../x"),
       {"a.yaml:10:13: spec.pluginID: must be at most 128 letters, digits, '.', '_' or '-', the first a letter or "
        "digit, not "
        "\"../x\""}},
      {"an unknown service",
       With("type: query", "type: querry"),
       {"a.yaml:15:13: spec.services[0].type: must be one of query, route, health, stream, admission, conversion, "
        "datasource-proxy, not \"querry\"; did you mean \"query\"?"}},
      {"a method in lower case",
       With("method: GET", "method: get"),
       {"a.yaml:17:15: spec.services[1].method: must be an HTTP method in upper case, or left out for every method, "
        "not "
        "\"get\"; did you mean \"GET\"?"}},
      {"a path of a query",
       With("- type: query", "- type: query\n      path: /x"),
       {"a.yaml:16:13: spec.services[0].path: is only for services of type route; \"query\" has its paths by its "
        "type"}},
      {"the same type twice",
       With("- type: query", "- type: query\n    - type: query"),
       {"a.yaml:16:7: spec.services[1]: declares the same type as spec.services[0] in line 15"}},
      {"the same route twice",
       With("- type: query", "- {type: route, method: GET, path: '/things/{other}'}"),
       {"a.yaml:16:7: spec.services[1]: declares the same method and path as spec.services[0] in line 15"}},
      {"syntax",
       With("kind: DataPlaneService", "kind: [DataPlaneService"),
       {"a.yaml:3:9: is not valid YAML or JSON: end of sequence flow not found"}},
      {"a tag",
       With("pluginID: prometheus", "pluginID: !!binary cHJv"),
       {"a.yaml:10:13: has the tag \"tag:yaml.org,2002:binary\", which manifests do not use"}},
      {"control bytes in values are escaped",
       With("pluginType: datasource", "pluginType: \"a\\u001b\\n\""),
       {"a.yaml:11:15: spec.pluginType: must be one of app, datasource, not \"a\\u001b\\n\""}},
  };
  for (const Case& test : cases)
    EXPECT_THAT(Complaints(test.text), ::testing::ElementsAreArray(test.complaints)) << test.what;
}

TEST(Manifest, CollectsEveryProblemOfEveryDocument) {
  const std::string text = With("pluginType: datasource", "pluginType: x") + "---\nkind: Pod\n---\n" +
                           With("version: v0alpha1", "version: 1");
  EXPECT_THAT(
      Complaints(text),
      ElementsAre("a.yaml:20:1: apiVersion: is required and must be aggregation.grafana.app/v0alpha1",
                  "a.yaml:20:7: kind: must be DataPlaneService, not \"Pod\"",
                  "a.yaml:34:12: spec.version: must be a string, but 1 is a number: put it in quotes",
                  "a.yaml:11:15: spec.pluginType: must be one of app, datasource, not \"x\"",
                  "a.yaml:34:12: spec.version: must be a version such as v1, v1beta2 or v0alpha1, not \"1\"",
                  "a.yaml:25:9: metadata.name: must be <version>.<group> of the spec, \"1.prometheus.grafana.app\", "
                  "not \"v0alpha1.prometheus.grafana.app\""));
}

TEST(Manifest, KeepsTheDocumentsBeforeASyntaxError) {
  const Manifests manifests = Parse(std::string(kGood) + "---\na: b: c\n");
  EXPECT_EQ(manifests.services.size(), 1u);
  EXPECT_EQ(manifests.problems.size(), 1u);
}

TEST(Manifest, ReadsJsonObjectsOneAfterAnother) {
  const std::string object =
      R"({"apiVersion":"aggregation.grafana.app/v0alpha1","kind":"DataPlaneService","metadata":{"name":"v1.a"},)"
      R"("spec":{"pluginID":"p","pluginType":"app","group":"a","version":"v1"}})";
  EXPECT_EQ(Parse(object + "\n" + object).services.size(), 2u);
  EXPECT_THAT(Complaints(object + ",\n" + object),
              ElementsAre("a.yaml:1:173: is not valid YAML or JSON: nothing can begin here"));
  EXPECT_THAT(Complaints(object + "}"), ElementsAre("a.yaml:1:173: is not valid YAML or JSON: illegal flow end"));
}

TEST(Manifest, TakesAByteOrderMarkAndCarriageReturns) {
  std::string text = "\xef\xbb\xbf";
  for (const char c : kGood) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  EXPECT_THAT(Complaints(text), IsEmpty());
  ASSERT_EQ(Parse(text).services.size(), 1u);
  EXPECT_EQ(Parse(text).services[0].plugin_id.value, "prometheus");
}

TEST(Manifest, RefusesWhatIsNotText) {
  EXPECT_THAT(Complaints(std::string("a: b\nc\0d", 8)),
              ElementsAre("a.yaml:2:2: has a NUL byte; manifests are UTF-8 text"));
  EXPECT_THAT(Complaints("a: \xff\xfe"), ElementsAre("a.yaml: is not UTF-8 text"));
}

TEST(Manifest, RefusesDeepNesting) {
  EXPECT_THAT(Complaints(std::string(10'000, '[') + std::string(10'000, ']')),
              ElementsAre("a.yaml:1:33: is nested deeper than 32 levels"));
  std::string maps;
  for (int i = 0; i < 1'000; ++i) maps += "{a: ";
  EXPECT_THAT(Complaints(maps + std::string(1'000, '}')), ElementsAre("a.yaml:1:129: is nested deeper than 32 levels"));
  std::string block;
  for (int i = 0; i < 1'000; ++i) block += "- ";
  EXPECT_THAT(Complaints(block + "x"), ElementsAre("a.yaml:1:65: is nested deeper than 32 levels"));
}

TEST(Manifest, RefusesAliasesThatMultiply) {
  std::string text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 20; ++i) {
    const std::string alias = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + alias;
    for (int j = 1; j < 10; ++j) text += "," + alias;
    text += "]\n";
  }
  const auto complaints = Complaints(text);
  ASSERT_EQ(complaints.size(), 1u);
  EXPECT_THAT(complaints[0], ::testing::EndsWith("has more than 100000 values (aliases count as written out)"));
  EXPECT_THAT(Complaints("a: &a [*a]"), ElementsAre("a.yaml:1:8: has an alias to a value that contains it"));
}

TEST(Manifest, RefusesTooManyValuesDocumentsAndBytes) {
  ManifestLimits limits;
  limits.yaml.nodes_max = 10;
  EXPECT_THAT(Lines(Parse("[1,2,3,4,5,6,7,8,9,10]", limits).problems),
              ElementsAre("a.yaml:1:20: has more than 10 values (aliases count as written out)"));
  limits = {};
  limits.yaml.documents_max = 2;
  EXPECT_THAT(Lines(Parse("---\n---\n---\n", limits).problems), ElementsAre("a.yaml:3:1: has more than 2 documents"));
  limits = {};
  limits.file_bytes_max = 100;
  EXPECT_THAT(Lines(Parse(kGood, limits).problems), ElementsAre("a.yaml: is larger than 100 bytes"));
}

TEST(Manifest, RefusesTwoOwnersOfAGroupAndVersionNamingBothFiles) {
  Manifests manifests;
  ParseManifest(kGood, "a.yaml", {}, manifests);
  ParseManifest(kGood, "b.yaml", {}, manifests);
  ParseManifest(With("name: v0alpha1", "name: v1"), "c.yaml", {}, manifests);
  manifests.services.back().version.value = "v1";
  ValidateServices(manifests.services, manifests.problems);
  EXPECT_THAT(Lines(manifests.problems),
              ElementsAre("b.yaml:12:10: spec.group: prometheus.grafana.app/v0alpha1 is already declared by "
                          "\"v0alpha1.prometheus.grafana.app\" in a.yaml:1"));
}

class ManifestFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = ::testing::TempDir() + "dpa_manifests_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, std::string_view text) { std::ofstream(folder_ / name) << text; }

  std::filesystem::path folder_;
};

TEST_F(ManifestFolderTest, ReadsManifestsInTheOrderOfNames) {
  for (const char* name : {"b.yml", "a.yaml", "c.json", "notes.txt", ".hidden.yaml", "a.yaml~", "a.yaml.bak"})
    Write(name, "x");
  std::filesystem::create_directory(folder_ / "sub");
  const ManifestFolder read = ReadManifestFolder(folder_, {});
  EXPECT_THAT(Lines(read.problems), IsEmpty());
  ASSERT_EQ(read.files.size(), 3u);
  EXPECT_EQ(read.files[0].path, (folder_ / "a.yaml").string());
  EXPECT_EQ(read.files[1].path, (folder_ / "b.yml").string());
  EXPECT_EQ(read.files[2].path, (folder_ / "c.json").string());
}

TEST_F(ManifestFolderTest, SaysWhichFileCannotBeRead) {
  std::filesystem::create_symlink("nowhere", folder_ / "a.yaml");
  std::filesystem::create_directory(folder_ / "b.yaml");
  Write("c.yaml", std::string(200, '#'));
  Write("d.yaml", "#");
  ManifestLimits limits;
  limits.file_bytes_max = 100;
  const ManifestFolder read = ReadManifestFolder(folder_, limits);
  EXPECT_THAT(Lines(read.problems),
              ElementsAre((folder_ / "a.yaml").string() + ": cannot be opened: No such file or directory",
                          (folder_ / "b.yaml").string() + ": is not a regular file",
                          (folder_ / "c.yaml").string() + ": is larger than 100 bytes"));
  EXPECT_EQ(read.files.size(), 1u);
}

TEST_F(ManifestFolderTest, SaysThatTheFolderIsMissingOrTooFull) {
  const std::string missing = (folder_ / "missing").string();
  EXPECT_THAT(Lines(ReadManifestFolder(missing, {}).problems),
              ElementsAre(missing + ": the folder of manifests cannot be read: No such file or directory"));
  Write("a.yaml", "x");
  Write("b.yaml", "x");
  ManifestLimits limits;
  limits.files_max = 1;
  EXPECT_THAT(Lines(ReadManifestFolder(folder_, limits).problems),
              ElementsAre(folder_.string() + ": has more than 1 manifest files"));
  limits.files_max = 2;
  limits.folder_bytes_max = 1;
  EXPECT_THAT(Lines(ReadManifestFolder(folder_, limits).problems),
              ElementsAre(folder_.string() + ": has manifests of more than 1 bytes together"));
}

TEST(Examples, AreValid) {
  const ManifestFolder read = ReadManifestFolder(DPA_SOURCE_DIR "/tools/examples/services", {});
  Manifests manifests = ParseManifests(read, {});
  ValidateServices(manifests.services, manifests.problems);
  EXPECT_THAT(Lines(manifests.problems), IsEmpty());
  ASSERT_FALSE(manifests.services.empty());
  EXPECT_EQ(manifests.services[0].name.value, "v0alpha1.dpa-testdata-datasource.datasource.grafana.app");
}

}  // namespace
}  // namespace dpa
