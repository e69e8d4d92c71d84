// Compiles DataPlaneServices to the RouteTable that workers match against.
//
// {p} is /apis/<group>/<version>; {u} stands for both {p}/namespaces/{ns}/datasources/{uid} and …/connections/{uid}:
//
//     query                    {u}/query                        every method (the exchange answers 405 itself)
//     route without a path     {u}/resources   {u}/resources/{path...}   the declared method, none for every one
//     route with a path        {p}/namespaces/{ns}<path>        the declared method, none for every one
//     health                   {u}/health
//     stream                   {u}/stream/{path...}
//     datasource-proxy         {u}/proxy       {u}/proxy/{path...}
//     admission                {p}/admission/mutate   {p}/admission/validate
//     conversion               {p}/conversion
//
// A service declares these and nothing else: below the same group and version lives what the delegate serves (objects,
// lists, watches), and it must stay reachable. For the same reason a type that the data path cannot answer yet is not
// registered at all; its requests go to the delegate, and a warning says so.

#pragma once

#include <span>
#include <string>
#include <vector>

#include "http/route_table.h"
#include "registry/resource.h"

namespace dpa {

// What the data path of this build answers.
struct RouteSupport {
  std::vector<ServiceType> types;  // kRoute: routes with a path; kResource: those without.
  bool http_backends = false;      // spec.backend.type http.
};

struct CompiledRoutes {
  RouteTable table;
  std::vector<Problem> problems;  // Not empty: the table lacks the routes they are about and must not be published.
  std::vector<Problem> warnings;  // Declared, but not implemented.
};

struct RoutePattern {
  std::string method;  // Empty: every method.
  std::string pattern;
};

// The patterns of one service entry, as listed above. REQUIRES: `service` has passed ValidateService.
std::vector<RoutePattern> PatternsOf(const DataPlaneService& service, const ServiceEntry& entry);

// REQUIRES: `services` have passed ValidateServices. A pattern that two entries share (a route whose path spells
// another type's) is a problem at the later one.
CompiledRoutes CompileRoutes(std::span<const DataPlaneService> services, const RouteSupport& support);

}  // namespace dpa
