// Header fields that the servers behind us believe, so that a client must not be able to send them: who the caller is,
// and whom a request was forwarded for.
//
// Names are compared without case, and '_' counts as '-': backends that put fields into environment variables cannot
// tell the two apart.

#pragma once

#include <string_view>

namespace dpa {

// Says who a caller is. X-Remote-User, -Uid, -Group and -Extra-* are what Kubernetes' API servers take from the
// aggregator before them; X-WEBAUTH-*, X-Grafana-Id, X-Grafana-User and X-Access-Token are Grafana's. They never come
// from a client, nor from a proxy in front of us: whoever authenticates there passes its credentials on.
bool IsIdentityField(std::string_view name);

// Says whom a request was forwarded for, beside Forwarded: X-Forwarded-*, and X-Real-Ip, which Grafana reads first.
bool IsForwardingField(std::string_view name);

}  // namespace dpa
