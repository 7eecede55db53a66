import { collectDefaultMetrics, Registry } from "prom-client";

/** A registry of metrics with those of the process itself (memory, event loop, garbage collection). */
export function createMetrics(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return registry;
}
