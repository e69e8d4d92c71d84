#include "tools/aggregator/data_plane.h"

#include <utility>

namespace dpa {
namespace {

uint64_t Milliseconds(Options::Duration duration) { return static_cast<uint64_t>(duration.count()); }

PluginClientOptions MakePluginOptions(const Options& options) {
  PluginClientOptions made;
  made.call_timeout_ms = Milliseconds(options.plugin_call_timeout);
  made.request_bytes_max = options.max_plugin_request_bytes;
  made.channel.calls_max = options.plugin_calls_per_worker;
  return made;
}

ProxyOptions MakeProxyOptions(const Options& options) {
  ProxyOptions made;
  for (const ServiceType type : PluginClient::implemented())
    made.implemented_types |= 1u << static_cast<uint32_t>(type);
  made.request_body_bytes_max = options.max_request_body_bytes;
  made.request_timeout_ms = Milliseconds(options.delegate_request_timeout);
  made.forward.expect_continue_timeout_ms = Milliseconds(options.expect_continue_timeout);
  made.forward.tunnel_idle_timeout_ms = Milliseconds(options.tunnel_idle_timeout);
  made.forward.tunnels_max = options.tunnels_per_worker;
  made.upstream.leases_max = options.pool_connections_per_worker;
  made.upstream.waiting_max = options.pool_queue_per_worker;
  made.upstream.waiting_timeout_ms = Milliseconds(options.pool_queue_timeout);
  made.upstream.idle_max = options.pool_idle_per_worker;
  made.upstream.idle_timeout_ms = Milliseconds(options.delegate_idle_timeout);
  made.upstream.connect_timeout_ms = Milliseconds(options.delegate_connect_timeout);
  made.upstream.recent_idle_max_ms = Milliseconds(options.delegate_post_reuse_idle);
  made.upstream.age_max_ms = Milliseconds(options.delegate_connection_max_age);
  made.upstream.exchanges_max = options.delegate_connection_max_requests;
  made.upstream.retries.percent = options.delegate_retry_budget_percent;
  made.upstream.retries.min_per_second = options.delegate_retry_min_per_second;
  made.upstream.connection.header_timeout_ms = Milliseconds(options.delegate_header_timeout);
  made.upstream.connection.body_timeout_ms = Milliseconds(options.delegate_body_timeout);
  made.upstream.connection.send_timeout_ms = Milliseconds(options.delegate_send_timeout);
  BalanceOptions& balance = made.group.balance;
  balance.eject_after = options.delegate_eject_after;
  balance.eject_ms = Milliseconds(options.delegate_eject_time);
  balance.eject_ms_max = Milliseconds(options.delegate_eject_time_max);
  balance.eject_percent_max = options.delegate_eject_max_percent;
  balance.slow_start_ms = Milliseconds(options.delegate_slow_start);
  balance.fall = options.delegate_health_fall;
  balance.rise = options.delegate_health_rise;
  made.group.check.path = options.delegate_health_path;
  made.group.check.interval_ms = Milliseconds(options.delegate_health_interval);
  made.group.check.timeout_ms = Milliseconds(options.delegate_health_timeout);
  return made;
}

}  // namespace

HttpServerOptions MakeServerOptions(const Options& options) {
  HttpServerOptions made;
  made.downstream.header_timeout_ms = Milliseconds(options.client_header_timeout);
  made.downstream.body_timeout_ms = Milliseconds(options.client_body_timeout);
  made.downstream.body_rate_min = options.client_body_min_rate;
  made.downstream.body_grace_ms = Milliseconds(options.client_body_grace);
  made.downstream.send_timeout_ms = Milliseconds(options.client_send_timeout);
  made.downstream.half_close_timeout_ms = Milliseconds(options.client_half_close_timeout);
  made.downstream.keep_alive_timeout_ms = Milliseconds(options.keepalive_timeout);
  made.downstream.exchanges_max = options.max_requests_per_connection;
  if (options.keepalive_timeout == Options::Duration(0)) {
    // One request each; it is waited for as long as its head would be.
    made.downstream.exchanges_max = 1;
    made.downstream.keep_alive_timeout_ms = made.downstream.header_timeout_ms;
  }
  made.downstream.identity.trusted_proxies = options.trusted_proxies;
  made.downstream.identity.proxy_protocol_from = options.proxy_protocol_from;
  made.downstream.identity.forwarded_header = options.forwarded_header;
  made.downstream.identity.request_ids = options.request_id;
  made.downstream.identity.trace_contexts = options.trace_context;
  made.listener.socket_buffer_bytes = static_cast<uint32_t>(options.socket_buffer_bytes);
  made.downstream.parser.head_bytes_max = static_cast<uint32_t>(options.max_header_bytes);
  made.downstream.parser.target_bytes_max = static_cast<uint32_t>(options.max_target_bytes);
  made.downstream.parser.fields_max = static_cast<uint16_t>(options.max_header_fields);
  return made;
}

namespace {

HttpServerOptions MakeDataServerOptions(const DataPlaneShared& shared) {
  HttpServerOptions made = MakeServerOptions(shared.options);
  made.downstream.in_flight_max = shared.options.requests_in_flight_per_worker;
  made.limiter = shared.connections;
  return made;
}

}  // namespace

DataPlane::DataPlane(Worker& worker, DataPlaneShared& shared)
    : access_log_(shared.access_log == nullptr ? nullptr
                                               : std::make_unique<WorkerAccessLog>(worker, *shared.access_log)),
      plugins_(worker, shared.control.plugins(), shared.control.contexts(), MakePluginOptions(shared.options)),
      proxy_(worker, shared.control.routes(), shared.control.upstreams(), shared.options.delegates, &plugins_,
             &shared.local, MakeProxyOptions(shared.options), metrics_),
      server_(worker, proxy_, MakeDataServerOptions(shared), metrics_, access_log_.get()) {}

DataPlane::~DataPlane() = default;

Task<void> DataPlane::Drain(uint64_t timeout_ms, std::function<void()> done) {
  co_await server_.Drain(timeout_ms);
  co_await proxy_.Drain();
  co_await plugins_.Drain();
  done();
}

void DataPlane::Collect(MetricsPage& page) const {
  metrics_.Collect(page);
  proxy_.Collect(page);
  plugins_.metrics().Collect(page);
}

}  // namespace dpa
