import { fork, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { newId } from "@cloudpods/shared/ids";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";
import { startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate } from "../../control-plane/src/platform/migrate.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { createFleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { placePod } from "../../control-plane/src/scheduling/place-pod.ts";
import { printBenchResult, type BenchResult } from "./bench-result.ts";
import { measureOrders } from "./order-load.ts";
import {
  countOversold,
  insertFleet,
  insertPlacedPods,
  insertPods,
  insertTenants,
  type UnplacedPod,
} from "../support/placement-fleet.ts";

/**
 * Durable placements per second: choose among 5,000 nodes, claim, write the placement. Four replicas are
 * processes of their own, race for the same fleet and use the tenants' login, as orders do. Beside it the
 * bare engine in the same processes: one statement that takes capacity of a random node if it fits and
 * inserts a row. And whole orders over REST of one replica in the same fleet, of which a placement is the last part.
 */
const replicas = 4;
const nodes = 5_000;
/** A fleet that has been in use: the planner of a database judges by what its tables hold. */
const podsOfNode = 4;
const tenants = 2_000;
const connectionsOfReplica = 3;
const warmUpSeconds = 2;
const secondsOfRun = Number(process.env["BENCH_SECONDS"] ?? 10);
const sizes = [
  { cores: 1, memoryMb: 1_024, diskGb: 2 },
  { cores: 1, memoryMb: 1_024, diskGb: 30 },
  { cores: 2, memoryMb: 2_048, diskGb: 75 },
  { cores: 3, memoryMb: 4_096, diskGb: 100 },
];

interface Job {
  readonly kind: "place" | "bare";
  readonly url: string;
  readonly seconds: number;
  readonly pods: readonly UnplacedPod[];
  readonly nodeIds: readonly string[];
}

interface Report {
  readonly done: number;
  readonly seconds: number;
  readonly latenciesMs: readonly number[];
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-bench-pg-"));
  const server = await startEmbeddedPostgres({ directory });
  try {
    const logins = await createLogins(server.superuserUrl, "bench");
    await migrate(logins.systemUrl, logins.apiUrl);
    const system = openDatabase({ url: logins.systemUrl, applicationName: "bench", connectionsMax: 2 });
    try {
      printBenchResult(await measure(system, logins.systemUrl, logins.apiUrl));
    } finally {
      await system.close();
    }
  } finally {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function measure(system: Database, systemUrl: string, apiUrl: string): Promise<BenchResult> {
  const nodeIds = await insertFleet(system, { nodes, cores: 128, memoryMb: 131_072, diskGb: 4_000 });
  const tenantIds = await insertTenants(system, tenants);
  await insertPlacedPods(system, nodeIds, tenantIds, podsOfNode);
  await system.execute(
    sql`CREATE TABLE bare_claims (id uuid PRIMARY KEY, node_id uuid NOT NULL, cpu integer NOT NULL, memory_mb integer NOT NULL)`,
  );
  const podsOfReplica = await makePods(system, tenantIds);
  await system.execute(sql`VACUUM ANALYZE`);
  console.error(`${nodes} nodes, ${podsOfReplica.flat().length} pods; placing for ${secondsOfRun} s`);
  const placed = await runReplicas("place", apiUrl, podsOfReplica, nodeIds);
  const { oversold, differing } = await countOversold(system);
  if (oversold > 0 || differing > 0)
    throw new Error(`${oversold} nodes or storages oversold, ${differing} not the sum of their claims`);
  console.error(`placed ${placed.done}; bare engine for ${secondsOfRun} s`);
  const bare = await runReplicas(
    "bare",
    systemUrl,
    podsOfReplica.map(() => []),
    nodeIds,
  );
  const orders = await measureOrders(systemUrl, apiUrl, secondsOfRun);
  const latencies = placed.latenciesMs.toSorted((a, b) => a - b);
  return {
    bench: "placement",
    value: placed.perSecond,
    unit: "placements/s",
    bare: bare.perSecond,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    nodes,
    replicas,
    placed: placed.done,
    oversold,
    ...orders,
  };
}

async function makePods(system: Database, tenantIds: readonly string[]): Promise<UnplacedPod[][]> {
  const podsPerReplica = (warmUpSeconds + secondsOfRun) * 1_500;
  const made: UnplacedPod[][] = [];
  for (let replica = 0; replica < replicas; replica++) {
    const pods: UnplacedPod[] = [];
    for (const size of sizes) {
      const owners = Array.from(
        { length: podsPerReplica / sizes.length },
        (_, index) => tenantIds[(index * 7 + replica) % tenantIds.length] ?? "",
      );
      pods.push(...(await insertPods(system, owners, size)));
    }
    // Sizes and tenants mixed, the same way in each run.
    made.push(pods.toSorted((a, b) => ((a.vmid * 7_919) % 100_003) - ((b.vmid * 7_919) % 100_003)));
  }
  return made;
}

async function runReplicas(
  kind: Job["kind"],
  url: string,
  podsOfReplica: readonly (readonly UnplacedPod[])[],
  nodeIds: readonly string[],
): Promise<{ done: number; perSecond: number; latenciesMs: readonly number[] }> {
  const children = podsOfReplica.map(() => fork(import.meta.filename, ["--replica"]));
  try {
    await Promise.all(children.map((child) => once(child, "message")));
    const reports = await Promise.all(
      children.map((child, index) =>
        ask(child, { kind, url, seconds: secondsOfRun, pods: podsOfReplica[index] ?? [], nodeIds }),
      ),
    );
    return {
      done: reports.reduce((sum, { done }) => sum + done, 0),
      perSecond: reports.reduce((sum, { done, seconds }) => sum + done / seconds, 0),
      latenciesMs: reports.flatMap(({ latenciesMs }) => latenciesMs),
    };
  } finally {
    for (const child of children) child.kill();
  }
}

async function ask(child: ChildProcess, job: Job): Promise<Report> {
  child.send(job);
  const [report] = await Promise.race([
    once(child, "message"),
    once(child, "exit").then(() => Promise.reject(new Error("a replica ended before it reported"))),
  ]);
  return report as Report; // the only thing that a replica sends after its job
}

async function replica(): Promise<void> {
  process.send?.("ready");
  const [job] = (await once(process, "message")) as [Job];
  const db = openDatabase({ url: job.url, applicationName: `bench-${job.kind}`, connectionsMax: connectionsOfReplica });
  const work = job.kind === "place" ? placing(db, job) : bareEngine(db, job);
  // Connections, plans of statements, compiled code and the first look at the fleet are not what is measured.
  await runLanes(work, warmUpSeconds);
  const report = await runLanes(work, job.seconds);
  await db.close();
  process.send?.(report, () => process.disconnect());
}

async function runLanes(work: () => Promise<void>, seconds: number): Promise<Report> {
  const latenciesMs: number[] = [];
  const startMs = performance.now();
  async function lane(): Promise<void> {
    for (let beganMs = startMs; beganMs < startMs + seconds * 1_000; beganMs = performance.now()) {
      await work();
      latenciesMs.push(performance.now() - beganMs);
    }
  }
  await Promise.all(Array.from({ length: connectionsOfReplica }, lane));
  return { done: latenciesMs.length, seconds: (performance.now() - startMs) / 1_000, latenciesMs };
}

function placing(db: Database, job: Job): () => Promise<void> {
  const fleet = createFleetView();
  let next = 0;
  return async () => {
    const pod = job.pods[next++];
    if (pod === undefined) throw new Error("all pods are placed: the run is too long for the pods that were made");
    const { podId, tenantId, vmid, ...size } = pod;
    await db.transaction(
      (tx) => placePod(tx, fleet, { podId, tenantId, vmid, generation: 1n, request: { ...size, region: "eu" } }),
      { tenantId },
    );
  };
}

function bareEngine(db: Database, job: Job): () => Promise<void> {
  return async () => {
    const nodeId = job.nodeIds[Math.floor(Math.random() * job.nodeIds.length)];
    await db.execute(sql`
      WITH taken AS (
        UPDATE node_capacity SET cpu_allocated = cpu_allocated + 1, memory_allocated_mb = memory_allocated_mb + 1024
        WHERE node_id = ${nodeId} AND cpu_allocated + 1 <= cpu_allocatable AND memory_allocated_mb + 1024 <= memory_allocatable_mb
        RETURNING node_id)
      INSERT INTO bare_claims (id, node_id, cpu, memory_mb) SELECT ${newId()}, node_id, 1, 1024 FROM taken`);
  };
}

function percentile(sorted: readonly number[], share: number): number {
  return Number((sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(2));
}

await (process.argv.includes("--replica") ? replica() : main());
