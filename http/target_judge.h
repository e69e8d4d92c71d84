// TargetJudge makes sure that a request is answered by whom its path means, whoever reads it: routes are matched on the
// bytes as sent, so a path that another server would read as one of another route, or of a route at all, must not get
// past. The rule:
//
//     every reading of the path (http/target_readings.h) leads to the same answerer with the same captures: the bytes
//     go on as they were sent. Otherwise 400, ambiguous_path.
//
// What a wildcard takes is not compared: it goes to its route as it is, and stays there in every reading.
//
//     /apis/g/v1/namespaces/n/datasources/u/resources/a%2Fb//c     goes on: the same route, the same ns and uid
//     /apis/g/v1/namespaces/n/datasources/u/resources/%2e%2e/x     refused: outside of the route for who resolves dots
//     /%61pis/g/v1/namespaces/n/datasources/u/query                refused: the delegate would serve our route
//     /api/x//%20/./y                                              goes on: the delegate's in every reading

#pragma once

#include <string_view>

#include "http/local_paths.h"
#include "http/route_table.h"
#include "http/target_readings.h"

namespace dpa {

// One per worker. Not for two threads.
class TargetJudge {
 public:
  // `match` is what `routes` makes of `path` as sent. `local` may be nullptr. Costs one scan where the path is plain.
  // REQUIRES: `path` begins with '/' or is "*".
  PathFault Judge(const RouteTable& routes, const LocalPaths* local, std::string_view method, std::string_view path,
                  const RouteMatch& match) {
    return IsPlainPath(path) ? PathFault::kNone : JudgeReadings(routes, local, method, path, match);
  }

 private:
  PathFault JudgeReadings(const RouteTable& routes, const LocalPaths* local, std::string_view method,
                          std::string_view path, const RouteMatch& match);

  PathReadings readings_;
};

}  // namespace dpa
