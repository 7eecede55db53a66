import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { StoreOutcome } from "./store-messages.ts";

/** What ingest counts. */
export interface IngestMetrics {
  stored(outcome: StoreOutcome, seconds: number): void;
  failed(): void;
  dropped(
    reason: "OVERLOADED" | "NOT_EVEN_DEAD_LETTER" | "MALFORMED_HEARTBEAT" | "HEARTBEAT_REFUSED" | "UNKNOWN_TOPIC",
    count?: number,
  ): void;
}

/** Registers the counters; `queuedBytes` and `lagSeconds` are asked when somebody reads them. */
export function ingestMetrics(
  registry: Registry,
  asked: { readonly queuedBytes: () => number; readonly lagSeconds: () => number; readonly mode: () => string },
): IngestMetrics {
  const registers = [registry];
  const batches = new Counter({
    name: "cloudpods_ingest_batches_total",
    help: "Batches of samples by what became of them.",
    labelNames: ["verdict"],
    registers,
  });
  const samples = new Counter({
    name: "cloudpods_ingest_samples_total",
    help: "Samples by where they were stored.",
    labelNames: ["place"],
    registers,
  });
  const rejected = new Counter({
    name: "cloudpods_ingest_rejected_samples_total",
    help: "Samples that were not believed.",
    labelNames: ["reason"],
    registers,
  });
  const deadLetters = new Counter({
    name: "cloudpods_ingest_dead_letters_total",
    help: "Messages kept because they could not be stored.",
    labelNames: ["reason"],
    registers,
  });
  const dropped = new Counter({
    name: "cloudpods_ingest_dropped_messages_total",
    help: "Messages that were let go; hosts offer batches again.",
    labelNames: ["reason"],
    registers,
  });
  const failures = new Counter({
    name: "cloudpods_ingest_failures_total",
    help: "Transactions that failed and are tried again.",
    registers,
  });
  const duration = new Histogram({
    name: "cloudpods_ingest_store_seconds",
    help: "Time to store a group of messages.",
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    registers,
  });
  gauge(registry, "cloudpods_ingest_queued_bytes", "Bytes of messages that wait to be stored.", asked.queuedBytes);
  gauge(
    registry,
    "cloudpods_ingest_lag_seconds",
    "Age of the oldest message that waits to be stored.",
    asked.lagSeconds,
  );
  gauge(registry, "cloudpods_ingest_subscribed", "1 while this replica receives samples.", () =>
    asked.mode() === "shared" || asked.mode() === "plain" ? 1 : 0,
  );
  return {
    stored(outcome, seconds) {
      for (const verdict of outcome.verdicts) batches.inc({ verdict });
      for (const reason of outcome.rejected) rejected.inc({ reason });
      for (const reason of outcome.deadLetters) deadLetters.inc({ reason });
      samples.inc({ place: "partition" }, outcome.samplesStored);
      samples.inc({ place: "late" }, outcome.samplesLate);
      duration.observe(seconds);
    },
    failed: () => failures.inc(),
    dropped: (reason, count = 1) => dropped.inc({ reason }, count),
  };
}

function gauge(registry: Registry, name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}
