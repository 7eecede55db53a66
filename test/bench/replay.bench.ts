import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { newId } from "@cloudpods/shared/ids";
import { SampleRows } from "../../control-plane/src/samples-intake/sample-rows.ts";
import type { StorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { usageDay, usageDays } from "../../control-plane/src/samples-intake/usage-days.ts";
import { sampleOf, type FleetNode } from "../support/telemetry-fleet.ts";
import { printBenchResult } from "./bench-result.ts";
import { copyBare, minuteOf, withIngest, type IngestUnderBench } from "./ingest-under-bench.ts";
import type { LiveLag, LiveWork } from "./live-publisher.ts";
import type { ReplayingHost, ReplayWork } from "./replay-publisher.ts";

/**
 * An outage is absorbed: hosts of 10,000 pods come back together and send what waited in their spools, each with at
 * most eight batches under way, over the embedded broker, every batch checked for repetition. The figure is samples
 * per second from the first batch to the last durable acknowledgement; beside it the bare COPY of the same rows
 * (encoded while the clock stands still) into the same table. Meanwhile other hosts, which were never cut off, send a
 * batch a second each: `live…Ms` is how long after its end such a sample is known to be durable, `idle…Ms` the same
 * before the replay begins. A live sample has at most eight batches of each host that came back before it, so its lag
 * is about `8 * hosts * podsPerHost` divided by the figure.
 *
 * The whole outage of 24 hours is BENCH_MINUTES=1440: 14.4 million samples and some gigabytes of disk. By default
 * only the last two hours were missed (1.2 million samples), so that it ends in minutes on two cores; nothing is
 * extrapolated from that.
 */
const hosts = Number(process.env["BENCH_HOSTS"] ?? 200);
const podsPerHost = Number(process.env["BENCH_PODS"] ?? 50);
const minutes = Number(process.env["BENCH_MINUTES"] ?? 120);
const liveHosts = Number(process.env["BENCH_LIVE_HOSTS"] ?? 20);
const liveIntervalMs = 1_000;
const idleMs = 10_000;
const repeatEvery = 50;
/** Rows of one bare COPY, about as many as ingest puts into one transaction. */
const bareGroupRows = 10_000;

const endMs = Math.floor(Date.now() / 60_000) * 60_000;
const samples = hosts * podsPerHost * minutes;

function endOf(minute: number): number {
  return endMs - (minutes - minute) * 60_000;
}

async function measureBare(pool: StorePool, fleet: readonly FleetNode[]): Promise<number> {
  let elapsedMs = 0;
  let rows = new SampleRows(bareGroupRows);
  const copy = async () => {
    elapsedMs += await copyBare(pool, rows.finish());
    rows = new SampleRows(bareGroupRows);
  };
  for (let minute = 1; minute <= minutes; minute++) {
    for (const [index, node] of fleet.entries()) {
      for (const pod of node.pods) rows.add(sampleOf(pod, endOf(minute)), index + 1, BigInt(minute));
      if (rows.count >= bareGroupRows) await copy();
    }
  }
  if (rows.count > 0) await copy();
  return (samples * 1_000) / elapsedMs;
}

/** Writes what a host could not send. */
async function fillSpool(node: FleetNode, spoolFile: string): Promise<void> {
  const spoolId = newId();
  const chunks: Uint8Array[] = [];
  for (let minute = 1; minute <= minutes; minute++) {
    const payload = minuteOf(node, spoolId, minute, endOf(minute));
    const header = Buffer.alloc(4);
    header.writeUInt32BE(payload.length);
    chunks.push(header, payload);
  }
  await writeFile(spoolFile, Buffer.concat(chunks));
}

async function startWorker(name: string, workerData: LiveWork | ReplayWork): Promise<Worker> {
  const worker = new Worker(new URL(name, import.meta.url), { workerData });
  await once(worker, "message");
  return worker;
}

/** The smallest figure that `share` of all figures do not exceed. */
function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

function lagFigures(name: "live" | "idle", lags: readonly LiveLag[]): Record<string, number> {
  const sorted = lags.map(({ lagMs }) => Math.round(lagMs)).toSorted((a, b) => a - b);
  return {
    [`${name}Batches`]: sorted.length,
    [`${name}P50Ms`]: percentile(sorted, 0.5),
    [`${name}P95Ms`]: percentile(sorted, 0.95),
    [`${name}MaxMs`]: percentile(sorted, 1),
  };
}

async function measure(bench: IngestUnderBench, directory: string): Promise<void> {
  const { pool, broker, fleet, identities, fresh, countSamples } = bench;
  const days = [usageDay(endOf(0)), usageDay(endMs)];
  for (let day = days[0] ?? 0; day <= (days[1] ?? 0); day++) await usageDays(pool).make([day]);
  await usageDays(pool).makeAhead(Date.now());
  const returning: ReplayingHost[] = [];
  const live: LiveWork["hosts"][number][] = [];
  for (const [index, identity] of identities.entries()) {
    const node = fleet[index] ?? { nodeId: identity.nodeId, pods: [] };
    const spoolFile = join(directory, identity.nodeId);
    if (index >= hosts) live.push({ ...identity, node });
    else {
      await fillSpool(node, spoolFile);
      returning.push({ ...identity, spoolFile, batches: minutes });
    }
  }
  await fresh();
  const bare = await measureBare(pool, fleet.slice(0, hosts));
  console.log(`bare COPY ${Math.round(bare)} rows/s`);
  await fresh();

  const living = await startWorker("./live-publisher.ts", { broker, hosts: live, intervalMs: liveIntervalMs });
  const replaying = await startWorker("./replay-publisher.ts", { broker, hosts: returning, repeatEvery });
  await sleep(idleMs);
  const [goMs, startedMs] = [Date.now(), performance.now()];
  replaying.postMessage("go");
  await once(replaying, "message");
  const elapsedMs = performance.now() - startedMs;
  const told = once(living, "message");
  living.postMessage("stop");
  const [lags] = (await told) as [LiveLag[]];
  const stored = await countSamples();
  const expected = samples + lags.length * podsPerHost;
  if (stored !== expected) throw new Error(`${stored} rows are stored, not ${expected}`);
  printBenchResult({
    bench: "replay",
    value: (samples * 1_000) / elapsedMs,
    unit: "samples/s",
    bare,
    pods: hosts * podsPerHost,
    minutes,
    hosts,
    samples,
    elapsedMs: Math.round(elapsedMs),
    liveHosts,
    ...lagFigures(
      "live",
      lags.filter(({ dueMs }) => dueMs >= goMs && dueMs < goMs + elapsedMs),
    ),
    ...lagFigures(
      "idle",
      lags.filter(({ dueMs, lagMs }) => dueMs + lagMs < goMs),
    ),
  });
}

const directory = await mkdtemp(join(tmpdir(), "cloudpods-replay-"));
try {
  await withIngest({ hosts: hosts + liveHosts, podsPerHost }, (bench) => measure(bench, directory));
} finally {
  await rm(directory, { recursive: true, force: true });
}
