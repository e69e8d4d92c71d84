// LocalPaths answers what is asked about this process itself: /livez, /readyz, /healthz and /version, in the words that
// Kubernetes' probes and kubectl know.
//
//     GET /readyz                 ok
//     GET /readyz?verbose         [+]ping ok … readyz check passed
//     GET /readyz?exclude=NAME    without that check
//     GET /readyz/NAME            one check
//
// A failed check makes it 500, always verbose. On the data listeners the causes stay inside ("reason withheld"), on the
// admin listener they are told.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/exchange.h"

namespace dpa {

class HealthChecks {
 public:
  // Returns why the check fails, or nothing. Called on workers' threads, several at once; must not wait.
  using Check = std::function<std::optional<std::string>()>;
  // A process that is not ready gets no traffic; one that is not alive is killed: few checks are worth that.
  enum class Scope : uint8_t { kReady, kReadyAndAlive };
  enum class Endpoint : uint8_t { kLivez, kReadyz, kHealthz };

  struct Answer {
    int status;
    std::string text;
  };

  // `ping` is there from the start. REQUIRES: called before the first Evaluate.
  HealthChecks();
  void Add(std::string name, Scope scope, Check check);

  // The answer to the endpoint's path. `name`: what follows its slash, empty for all checks. `query`: of the URL.
  Answer Evaluate(Endpoint endpoint, std::string_view name, std::string_view query, bool tell_causes) const;

 private:
  struct Named {
    std::string name;
    Scope scope;
    Check check;
  };
  bool Belongs(const Named& named, Endpoint endpoint) const;
  Answer EvaluateOne(Endpoint endpoint, std::string_view name) const;

  std::vector<Named> checks_;
};

class LocalPaths final : public ExchangeHandler {
 public:
  // `checks` outlives it. `version`: of this program, "1.2.3". One object may serve all workers.
  LocalPaths(const HealthChecks& checks, std::string_view version, bool tell_causes);

  bool Owns(std::string_view path) const;
  Task<void> Handle(Exchange& exchange) override;

 private:
  const HealthChecks& checks_;
  const std::string version_body_;
  const bool tell_causes_;
};

// What local handlers share: answers `text` whole. `exchange` and `text` live until it is done.
Task<void> RespondText(Exchange& exchange, int status, std::string_view content_type, std::string_view text);
// Answers 405 with Allow and returns true unless the request is a GET or a HEAD.
Task<bool> RefusesMethod(Exchange& exchange);

}  // namespace dpa
