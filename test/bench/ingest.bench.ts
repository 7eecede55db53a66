import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { newId } from "@cloudpods/shared/ids";
import { SampleRows } from "../../control-plane/src/samples-intake/sample-rows.ts";
import type { StorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { usageDays } from "../../control-plane/src/samples-intake/usage-days.ts";
import { sampleOf, type FleetNode } from "../support/telemetry-fleet.ts";
import { printBenchResult } from "./bench-result.ts";
import { copyBare, minuteOf, withIngest, type IngestUnderBench } from "./ingest-under-bench.ts";
import type { PublisherWork, PublishingHost } from "./ingest-publisher.ts";

/**
 * Samples per second from hosts over the embedded broker (mutual TLS, a connection per host) to their
 * durable acknowledgement, every batch checked for repetition; beside the bare COPY of the same rows,
 * encoded beforehand, into the same table with its key. Both commit to the disk; rounds alternate.
 */
const hosts = Number(process.env["BENCH_HOSTS"] ?? 100);
const podsPerHost = Number(process.env["BENCH_PODS"] ?? 50);
const batchesPerHost = Number(process.env["BENCH_BATCHES"] ?? 120);
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 3);
const repeatEvery = 50;
/** Rows of one bare COPY, about as many as ingest puts into one transaction. */
const bareGroupRows = 10_000;

const endMs = Math.floor(Date.now() / 60_000) * 60_000;
const samplesPerRound = hosts * podsPerHost * batchesPerHost;

function endOf(batch: number): number {
  return endMs - (batchesPerHost - batch) * 60_000;
}

function bareGroups(fleet: readonly FleetNode[]): Buffer[] {
  const groups: Buffer[] = [];
  let rows = new SampleRows(bareGroupRows);
  for (let seq = 1; seq <= batchesPerHost; seq++) {
    fleet.forEach((node, index) => {
      for (const pod of node.pods) rows.add(sampleOf(pod, endOf(seq)), index + 1, BigInt(seq));
      if (rows.count >= bareGroupRows) {
        groups.push(rows.finish());
        rows = new SampleRows(bareGroupRows);
      }
    });
  }
  if (rows.count > 0) groups.push(rows.finish());
  return groups;
}

async function measureBare(pool: StorePool, groups: readonly Buffer[]): Promise<number> {
  let elapsedMs = 0;
  for (const group of groups) elapsedMs += await copyBare(pool, group);
  return (samplesPerRound * 1_000) / elapsedMs;
}

async function measureIngest(work: PublisherWork): Promise<number> {
  const publisher = new Worker(new URL("./ingest-publisher.ts", import.meta.url), { workerData: work });
  await once(publisher, "message");
  const startedMs = performance.now();
  publisher.postMessage("go");
  await once(publisher, "message");
  const elapsedMs = performance.now() - startedMs;
  await once(publisher, "exit");
  return (samplesPerRound * 1_000) / elapsedMs;
}

function median(figures: readonly number[]): number {
  return figures.toSorted((a, b) => a - b)[Math.floor(figures.length / 2)] ?? Number.NaN;
}

async function measure({ pool, broker, fleet, identities, fresh, countSamples }: IngestUnderBench): Promise<void> {
  await usageDays(pool).makeAhead(Date.now());
  await usageDays(pool).makeAhead(endOf(0));
  const groups = bareGroups(fleet);
  const figures: { bare: number; value: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    const publishing: PublishingHost[] = identities.map((identity, index) => {
      const spoolId = newId();
      const node = fleet[index] ?? { nodeId: identity.nodeId, pods: [] };
      return {
        ...identity,
        payloads: Array.from({ length: batchesPerHost }, (_, batch) =>
          minuteOf(node, spoolId, batch + 1, endOf(batch + 1)),
        ),
      };
    });
    await fresh();
    const bare = await measureBare(pool, groups);
    await fresh();
    const value = await measureIngest({ broker, hosts: publishing, repeatEvery });
    const stored = await countSamples();
    if (stored !== samplesPerRound) throw new Error(`${stored} rows are stored, not ${samplesPerRound}`);
    console.log(`round ${round + 1}: ${Math.round(value)} samples/s, bare COPY ${Math.round(bare)} rows/s`);
    figures.push({ bare, value });
  }
  printBenchResult({
    bench: "ingest",
    value: median(figures.map((figure) => figure.value)),
    unit: "samples/s",
    bare: median(figures.map((figure) => figure.bare)),
    rounds,
    samplesPerRound,
    hosts,
    samplesPerBatch: podsPerHost,
  });
}

await withIngest({ hosts, podsPerHost }, measure);
