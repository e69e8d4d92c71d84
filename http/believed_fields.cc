#include "http/believed_fields.h"

#include "http/bytes.h"

namespace dpa {
namespace {

bool EqualsFolded(std::string_view name, std::string_view lower) {
  if (name.size() != lower.size()) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    if ((name[i] == '_' ? '-' : ToLower(name[i])) != lower[i]) return false;
  }
  return true;
}

bool StartsWithFolded(std::string_view name, std::string_view lower) {
  return name.size() >= lower.size() && EqualsFolded(name.substr(0, lower.size()), lower);
}

}  // namespace

// The third letter rules nearly all other fields out: heads are full of X- ones, and each is asked about.
bool IsIdentityField(std::string_view name) {
  if (name.size() < 9 || ToLower(name.front()) != 'x') return false;
  switch (ToLower(name[2])) {
    case 'r':
      return EqualsFolded(name, "x-remote-user") || EqualsFolded(name, "x-remote-uid") ||
             EqualsFolded(name, "x-remote-group") || StartsWithFolded(name, "x-remote-extra-");
    case 'w':
      return StartsWithFolded(name, "x-webauth-");
    case 'g':
      return EqualsFolded(name, "x-grafana-id") || EqualsFolded(name, "x-grafana-user");
    case 'a':
      return EqualsFolded(name, "x-access-token");
    default:
      return false;
  }
}

bool IsForwardingField(std::string_view name) {
  if (name.size() < 9 || ToLower(name.front()) != 'x') return false;
  const char third = ToLower(name[2]);
  return (third == 'f' && StartsWithFolded(name, "x-forwarded-")) || (third == 'r' && EqualsFolded(name, "x-real-ip"));
}

}  // namespace dpa
