import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** What the gateway counts. */
export interface GatewayMetrics {
  /** Sessions that did not begin, or that we ended, by reason. */
  readonly sessionsRefused: Counter<"reason">;
  readonly sessionsEnded: Counter<"reason">;
  /** Messages that were no protobuf of ours, or broke a rule of the protocol. */
  readonly malformedMessages: Counter;
  /** Results by what became of them. */
  readonly results: Counter<"fate">;
  /** Inventories and observations of pods that changed nothing, by reason. */
  readonly reportsDropped: Counter<"reason">;
  /** From the commit of a command to its writing to the session, in seconds. */
  readonly dispatchSeconds: Histogram;
}

/** Registers the gateway's metrics; `sessions` tells how many are open. */
export function gatewayMetrics(registry: Registry, sessions: () => number): GatewayMetrics {
  const registers = [registry];
  new Gauge({
    name: "cloudpods_gateway_sessions",
    help: "Agents connected to this replica.",
    registers,
    collect() {
      this.set(sessions());
    },
  });
  return {
    sessionsRefused: new Counter({
      name: "cloudpods_gateway_sessions_refused_total",
      help: "Sessions that did not begin.",
      labelNames: ["reason"],
      registers,
    }),
    sessionsEnded: new Counter({
      name: "cloudpods_gateway_sessions_ended_total",
      help: "Sessions that ended.",
      labelNames: ["reason"],
      registers,
    }),
    malformedMessages: new Counter({
      name: "cloudpods_gateway_malformed_messages_total",
      help: "Messages that ended their session.",
      registers,
    }),
    results: new Counter({
      name: "cloudpods_gateway_results_total",
      help: "Results of commands by what became of them.",
      labelNames: ["fate"],
      registers,
    }),
    reportsDropped: new Counter({
      name: "cloudpods_gateway_reports_dropped_total",
      help: "Inventories and observations of pods that were left out, by reason.",
      labelNames: ["reason"],
      registers,
    }),
    dispatchSeconds: new Histogram({
      name: "cloudpods_gateway_dispatch_seconds",
      help: "From the making of a command to its writing to the session.",
      buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10],
      registers,
    }),
  };
}
