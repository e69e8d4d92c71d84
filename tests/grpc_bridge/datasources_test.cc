// Goal: Grafana's provisioning files mean here what they mean there, every mistake is named by file and line, and the
// identity that plugins cache by is stable. Method: texts and small folders, loaded once and again.

#include "grpc_bridge/datasources.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

namespace dpa {
namespace {

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "datasources_test.XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return (path_ / name).string();
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

DataSourceLoadOptions Environment(std::map<std::string, std::string> variables) {
  DataSourceLoadOptions options;
  options.environment = [variables](const std::string& name) -> std::optional<std::string> {
    auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  return options;
}

DataSourceLoad Load(const std::string& yaml, const DataSourceLoadOptions& options = Environment({}),
                    const DataSourceSet* previous = nullptr) {
  return LoadDataSourcesFromText(yaml, "ds.yaml", options, previous);
}

std::string Problems(const DataSourceLoad& load) {
  std::string all;
  for (const auto& problem : load.problems) all += problem.ToString() + "\n";
  return all;
}

// One entry with the given lines beside name and type, which stand on lines 3 and 4.
std::string Entry(const std::string& lines) {
  return "apiVersion: 1\ndatasources:\n  - name: n\n    type: t\n    uid: u\n" + lines;
}

const DataSource& Only(const DataSourceLoad& load) {
  EXPECT_EQ(Problems(load), "");
  static const DataSource kNone;
  return load.set->sources().size() == 1 ? load.set->sources().front() : kNone;
}

TEST(DataSources, ReadsEveryMember) {
  auto load = Load(R"(
apiVersion: 1
prune: true
deleteDatasources:
  - {name: old, orgId: 1}
datasources:
  - name: Metrics
    uid: m1
    type: prometheus
    access: proxy
    orgId: 2
    url: http://h:9090
    user: ada
    database: db
    basicAuth: true
    basicAuthUser: bob
    withCredentials: true
    isDefault: true
    editable: false
    version: 3
    correlations: []
    jsonData:
      b: {z: [1, two, 3.5, null, ~, true, No], y: {}}
      a: "1"
    secureJsonData:
      password: hunter2
      number: 42
)");
  const DataSource& source = Only(load);
  EXPECT_EQ(source.name, "Metrics");
  EXPECT_EQ(source.uid, "m1");
  EXPECT_EQ(source.type, "prometheus");
  EXPECT_EQ(source.org_id, 2);
  EXPECT_EQ(source.url, "http://h:9090");
  EXPECT_EQ(source.user, "ada");
  EXPECT_EQ(source.database, "db");
  EXPECT_TRUE(source.basic_auth);
  EXPECT_EQ(source.basic_auth_user, "bob");
  EXPECT_TRUE(source.with_credentials);
  EXPECT_TRUE(source.is_default);
  EXPECT_EQ(source.json_data, R"({"a":"1","b":{"y":{},"z":[1,"two",3.5,null,null,true,"No"]}})");
  EXPECT_EQ(source.secure_json_data.at("password"), "hunter2");
  EXPECT_EQ(source.secure_json_data.at("number"), "42");
  EXPECT_EQ(source.line, 7);
  EXPECT_EQ(load.set->Find(2, "m1"), &load.set->sources().front());
  EXPECT_EQ(load.set->Find(1, "m1"), nullptr);
}

TEST(DataSources, Defaults) {
  auto load = Load("apiVersion: 1\ndatasources:\n- {name: Prometheus, type: prometheus}\n");
  const DataSource& source = Only(load);
  EXPECT_EQ(source.uid, "PBFA97CFB590B2093") << "Grafana's well-known default uid of a data source with this name";
  EXPECT_EQ(source.org_id, 1);
  EXPECT_EQ(source.access, "proxy");
  EXPECT_EQ(source.json_data, "{}");
  EXPECT_GT(source.id, 0);
  EXPECT_GT(source.last_updated_ms, 0);
}

TEST(DataSources, JsonTypesFollowTheCoreSchema) {
  struct Row {
    const char* yaml;
    const char* json;
  };
  for (const Row& row : std::initializer_list<Row>{{"12", "12"},
                                                   {"-3", "-3"},
                                                   {"+7", "7"},
                                                   {"007", "7"},
                                                   {"-0", "-0"},
                                                   {"0x1F", "31"},
                                                   {"0o17", "15"},
                                                   {"12345678901234567890123", "12345678901234567890123"},
                                                   {"1.50", "1.5"},
                                                   {".5", "0.5"},
                                                   {"-.5", "-0.5"},
                                                   {"5.", "5"},
                                                   {"1e3", "1000"},
                                                   {"1E-7", "1e-07"},
                                                   {"1e999", "\"1e999\""},
                                                   {"1.2.3", "\"1.2.3\""},
                                                   {"True", "true"},
                                                   {"FALSE", "false"},
                                                   {"yes", "\"yes\""},
                                                   {"on", "\"on\""},
                                                   {"Null", "null"},
                                                   {"~", "null"},
                                                   {"", "null"},
                                                   {"'12'", "\"12\""},
                                                   {"\"true\"", "\"true\""},
                                                   {"''", "\"\""},
                                                   {"!!str 12", "\"12\""},
                                                   {"2001-12-14", "\"2001-12-14\""},
                                                   {"1_000", "\"1_000\""},
                                                   {"+", "\"+\""},
                                                   {"0x", "\"0x\""},
                                                   {"e5", "\"e5\""},
                                                   {"\"a\\tb\\\"\"", "\"a\\tb\\\"\""},
                                                   {"caf\xC3\xA9", "\"caf\xC3\xA9\""}}) {
    auto load = Load(Entry(std::string("    jsonData:\n      x: ") + row.yaml + "\n"));
    EXPECT_EQ(Only(load).json_data, std::string("{\"x\":") + row.json + "}") << row.yaml;
  }
}

TEST(DataSources, Interpolates) {
  Folder folder;
  std::string secret = folder.Write("secret", "  s3$cret\n");
  auto options = Environment({{"HOST", "h"}, {"ORG", "7"}, {"YES", "true"}, {"DOLLAR", "$HOST"}, {"EMPTY", ""}});
  auto load =
      Load(Entry("    url: http://$HOST:${HOST}/$__env{HOST}$$HOST$EMPTY$\n    orgId: $ORG\n    basicAuth: $YES\n"
                 "    user: a$ b\n    database: $DOLLAR\n    jsonData: {a: [\"$HOST\"], $HOST: $ORG}\n"
                 "    secureJsonData:\n      p: $__file{" +
                 secret + "}\n"),
           options);
  const DataSource& source = Only(load);
  EXPECT_EQ(source.url, "http://h:h/h$HOST$");
  EXPECT_EQ(source.org_id, 7);
  EXPECT_TRUE(source.basic_auth);
  EXPECT_EQ(source.user, "a$ b");
  EXPECT_EQ(source.database, "$HOST") << "what a variable holds is not interpolated again";
  EXPECT_EQ(source.json_data, R"({"$HOST":"7","a":["h"]})") << "keys stay, interpolated values are strings";
  EXPECT_EQ(source.secure_json_data.at("p"), "s3$cret");
}

TEST(DataSources, UsesTheProcessEnvironmentByDefault) {
  setenv("DPA_DATASOURCES_TEST", "from-env", 1);
  auto load = Load(Entry("    url: $DPA_DATASOURCES_TEST\n"), DataSourceLoadOptions{});
  EXPECT_EQ(Only(load).url, "from-env");
}

TEST(DataSources, OldFormHasSnakeCaseKeys) {
  auto load = Load(
      "datasources:\n- name: n\n  type: t\n  org_id: 3\n  basic_auth: true\n  json_data: {a: 1}\n"
      "  secure_json_data: {p: q}\n  is_default: true\n  basic_auth_user: b\n  with_credentials: true\n");
  const DataSource& source = Only(load);
  EXPECT_EQ(source.org_id, 3);
  EXPECT_EQ(source.json_data, R"({"a":1})");
  EXPECT_EQ(source.secure_json_data.at("p"), "q");
  EXPECT_TRUE(source.is_default);
  EXPECT_EQ(Problems(Load("apiVersion: 1\ndatasources:\n- name: n\n  type: t\n  org_id: 3\n")),
            "ds.yaml:5: unknown key org_id is ignored\n");
}

TEST(DataSources, MistakesAreNamedByFileAndLine) {
  struct Row {
    std::string yaml, problem;
  };
  for (const Row& row : std::vector<Row>{
           {"[", "ds.yaml:1: not valid YAML: end of sequence flow not found\n"},
           {"a: b: c", "ds.yaml:1: not valid YAML: illegal map value\n"},
           {",po", "ds.yaml:1: only one YAML document per file is read; move this one to a file of its own\n"},
           {"- x\n", "ds.yaml:1: expected a mapping with the key datasources\n"},
           {"apiVersion: 2\n", "ds.yaml:1: apiVersion must be 1\n"},
           {"apiVersion: 1\ndatasources: {}\n", "ds.yaml:2: datasources must be a list\n"},
           {"apiVersion: 1\ndatasource: []\n", "ds.yaml:2: unknown key datasource is ignored\n"},
           {"apiVersion: 1\ndatasources:\n- x\n", "ds.yaml:3: a data source must be a mapping\n"},
           {"apiVersion: 1\ndatasources:\n- type: t\n", "ds.yaml:3: name is missing\n"},
           {"apiVersion: 1\ndatasources:\n- name: n\n", "ds.yaml:3: type is missing (the plugin id)\n"},
           {Entry("    orgId: x\n"), "ds.yaml:6: orgId must be a positive number\n"},
           {Entry("    orgId: -1\n"), "ds.yaml:6: orgId must be a positive number\n"},
           {Entry("    orgName: Main\n"),
            "ds.yaml:6: orgName cannot be resolved without Grafana's database; use orgId\n"},
           {Entry("    basicAuth: maybe\n"), "ds.yaml:6: basicAuth must be true or false\n"},
           {Entry("    url: [a]\n"), "ds.yaml:6: url must be a string\n"},
           {Entry("    url: a\n    url: b\n"), "ds.yaml:7: url is given twice\n"},
           {Entry("    jsonData: 5\n"), "ds.yaml:6: jsonData must be a mapping\n"},
           {Entry("    jsonData: {a: .inf}\n"),
            "ds.yaml:6: JSON has no infinity and no NaN; quote it to make it a string\n"},
           {Entry("    jsonData: {a: 1, a: 2}\n"), "ds.yaml:6: a is given twice\n"},
           {Entry("    secureJsonData: {p: [1]}\n"), "ds.yaml:6: secureJsonData.p must be a string\n"},
           {Entry("    url: ${\n"), "ds.yaml:6: a ${…} is empty or has no end; write $$ for a dollar\n"},
           {Entry("    url: \"${}\"\n"), "ds.yaml:6: a ${…} is empty or has no end; write $$ for a dollar\n"},
           {Entry("    url: $__vault{x}\n"),
            "ds.yaml:6: $__vault{} is not known; there are $__env{NAME} and $__file{PATH}\n"},
           {Entry("    url: $__file{/nowhere/at/all}\n"), "ds.yaml:6: $__file{/nowhere/at/all} does not exist\n"},
           {Entry("    url: $__file{/dev/zero}\n"), "ds.yaml:6: $__file{/dev/zero} is not a regular file\n"},
           {Entry("    url: $UNSET\n"),
            "ds.yaml:6: the environment variable UNSET is not set; nothing is put in its place (write $$ for a "
            "dollar)\n"},
           {Entry("---\na: b\n"),
            "ds.yaml:6: only one YAML document per file is read; move this one to a file of its own\n"},
       }) {
    EXPECT_EQ(Problems(Load(row.yaml)), row.problem) << row.yaml;
  }
  EXPECT_FALSE(Load(Entry("    url: $UNSET\n")).has_errors());
  EXPECT_TRUE(Load(Entry("    orgId: x\n")).has_errors());
  EXPECT_EQ(Problems(Load("")), "");
  EXPECT_EQ(Problems(Load("datasources:\n")), "");
}

TEST(DataSources, AGoodEntryBesideABadOneStands) {
  auto load = Load("apiVersion: 1\ndatasources:\n- {name: bad}\n- {name: good, type: t}\n");
  EXPECT_TRUE(load.has_errors());
  ASSERT_EQ(load.set->sources().size(), 1u);
  EXPECT_EQ(load.set->sources()[0].name, "good");
}

TEST(DataSources, ErrorsDoNotShowSecrets) {
  auto load = Load(Entry("    secureJsonData: {p: 'hunter2 ${}', q: [hunter3]}\n    basicAuth: hunter4\n"));
  EXPECT_EQ(Problems(load).find("hunter"), std::string::npos) << Problems(load);
}

TEST(DataSources, FoldersAreReadInAlphabeticalOrder) {
  Folder folder;
  std::string two =
      folder.Write("2.yml", "apiVersion: 1\ndatasources:\n- {name: b, type: t, uid: u, isDefault: true}\n");
  std::string one =
      folder.Write("1.yaml", "apiVersion: 1\ndatasources:\n- {name: a, type: t, uid: u, isDefault: true}\n");
  std::string three = folder.Write(
      "3.yaml",
      "apiVersion: 1\ndatasources:\n- {name: a, type: t, uid: v}\n"
      "- {name: c, type: t, uid: c, isDefault: true}\n- {name: a, type: t, uid: u, orgId: 2, isDefault: true}\n");
  folder.Write("README.md", "[");
  std::vector<std::string> paths = {folder.path()};
  auto load = LoadDataSources(paths, {}, nullptr);
  EXPECT_EQ(Problems(load), two + ":3: the uid u is already given at " + one + ":3 (organisation 1)\n" + three +
                                ":3: the name a is already given at " + one + ":3 (organisation 1)\n" + three +
                                ":4: a data source with isDefault is already given at " + one +
                                ":3 (organisation 1)\n");
  EXPECT_TRUE(load.has_errors());
  ASSERT_NE(load.set->Find(1, "u"), nullptr);
  EXPECT_EQ(load.set->Find(1, "u")->name, "a");
  EXPECT_NE(load.set->Find(2, "u"), nullptr);
  EXPECT_NE(load.set->Find(2, "u")->id, load.set->Find(1, "u")->id);
  std::vector<std::string> missing = {folder.path() + "/none.yaml"};
  EXPECT_EQ(Problems(LoadDataSources(missing, {}, nullptr)), missing[0] + ": does not exist\n");
}

TEST(DataSources, IdentityIsStableAndFollowsTheContent) {
  auto first = Load(Entry("    url: a\n    jsonData: {x: 1, y: 2}\n"));
  auto restarted = Load("# moved\n\n" + Entry("    jsonData: {y: 2, x: 1}\n    url: a\n    editable: true\n"));
  auto reloaded = Load(Entry("    url: a\n    jsonData: {x: 1, y: 2}\n"), Environment({}), first.set.get());
  for (const auto& load : {restarted, reloaded}) {
    EXPECT_EQ(Only(load).id, Only(first).id);
    EXPECT_EQ(Only(load).last_updated_ms, Only(first).last_updated_ms);
  }
  auto changed = Load(Entry("    url: b\n    jsonData: {x: 1, y: 2}\n"), Environment({}), first.set.get());
  EXPECT_EQ(Only(changed).id, Only(first).id);
  EXPECT_NE(Only(changed).last_updated_ms, Only(first).last_updated_ms);
}

TEST(DataSources, AChangedSecretChangesTheIdentity) {
  std::string yaml = Entry("    secureJsonData: {p: $SECRET}\n");
  auto first = Load(yaml, Environment({{"SECRET", "one"}}));
  auto same = Load(yaml, Environment({{"SECRET", "one"}}), first.set.get());
  auto changed = Load(yaml, Environment({{"SECRET", "two"}}), first.set.get());
  EXPECT_EQ(Only(same).last_updated_ms, Only(first).last_updated_ms);
  EXPECT_NE(Only(changed).last_updated_ms, Only(first).last_updated_ms);
}

TEST(DataSources, ManyHaveDistinctIds) {
  std::vector<DataSource> sources(5000);
  for (size_t i = 0; i < sources.size(); ++i) sources[i].uid = "u" + std::to_string(i);
  DataSourceSet set(sources, nullptr);
  std::set<int64_t> ids;
  for (const DataSource& source : set.sources()) {
    EXPECT_GT(source.id, 0);
    ids.insert(source.id);
  }
  EXPECT_EQ(ids.size(), sources.size());
}

TEST(DataSources, ATakenIdGoesToWhoHadIt) {
  DataSource mine;
  mine.uid = "mine";
  int64_t natural = DataSourceSet({mine}, nullptr).sources()[0].id;
  // In the set before, another data source holds the id that `mine` would get.
  DataSource other;
  other.uid = "zz-other";
  DataSourceSet before({other}, nullptr);
  const_cast<DataSource&>(before.sources()[0]).id = natural;
  DataSourceSet after({mine, other}, &before);
  EXPECT_EQ(after.Find(1, "zz-other")->id, natural);
  EXPECT_NE(after.Find(1, "mine")->id, natural);
  EXPECT_GT(after.Find(1, "mine")->id, 0);
}

TEST(DataSources, AliasesWorkAndBombsDoNot) {
  auto load = Load("common: &c {x: 1}\n" + Entry("    jsonData: {a: &l [1, 2], b: *l}\n"));
  EXPECT_EQ(load.set->sources().size(), 1u);
  EXPECT_EQ(load.set->sources()[0].json_data, R"({"a":[1,2],"b":[1,2]})");
  std::string bomb = "    jsonData:\n      a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    std::string below = "*a" + std::to_string(i - 1);
    bomb += "      a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int n = 0; n < 10; ++n) bomb += (n > 0 ? ", " : "") + below;
    bomb += "]\n";
  }
  load = Load(Entry(bomb));
  EXPECT_TRUE(load.set->sources().empty());
  EXPECT_NE(Problems(load).find("more than 200000 YAML nodes with aliases expanded"), std::string::npos)
      << Problems(load);
}

TEST(DataSources, DepthIsBounded) {
  auto nested = [](int levels) {
    return Entry("    jsonData: {a: " + std::string(levels, '[') + std::string(levels, ']') + "}\n");
  };
  EXPECT_EQ(Problems(Load(nested(60))), "");
  EXPECT_EQ(Problems(Load(nested(100))), "ds.yaml:6: jsonData is nested deeper than 64 levels\n");
  EXPECT_TRUE(Load(nested(50'000)).has_errors());
  EXPECT_TRUE(Load(Entry("    jsonData: &a {a: *a}\n")).has_errors());
}

}  // namespace
}  // namespace dpa
