import { workingLoad } from "../../test/support/metered-truth.ts";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { type ApiClient, until } from "./api-client.ts";
import { checkInvariants, faultsOf, type Invariants } from "./check-invariants.ts";
import type { DemoHost } from "./demo-hosts.ts";
import { whyNot } from "./fleet-drain.ts";
import { type DrainThroughOutage, drainThroughOutage, type OutageStage } from "./fleet-outage.ts";
import { orderPod } from "./order-pod.ts";
import { watchDoubleRuns, type DoubleRuns } from "./watch-double-runs.ts";

/** The last line of the fleet's story; every promise is a figure that is to be zero. */
export interface FleetReport extends Invariants {
  readonly ok: boolean;
  readonly hosts: number;
  readonly pods: number;
  readonly drained: string;
  /** The host that failed meanwhile. */
  readonly killed: string;
  /** From the cut of its power until it was called offline; null where only its agent was killed. */
  readonly killedOfflineAfterMs: number | null;
  /** Places that the drain held on it and has found elsewhere. */
  readonly replanned: number;
  readonly podsMoved: number;
  /** How they moved: inside their cluster, or by an archive. */
  readonly strategies: Readonly<Record<string, number>>;
  /** As measured by the control plane: from the stop at the source to the start at the target. */
  readonly downtimeP50Ms: number;
  readonly downtimeP95Ms: number;
  readonly downtimeMaxMs: number;
  readonly drainSeconds: number;
  /** Seconds in which any pod ran on two hosts. */
  readonly doubleRunSeconds: number;
  /** Why it is not ok. */
  readonly reasons: readonly string[];
}

/** What the story is played with. */
export interface FleetStage extends OutageStage {
  readonly api: ApiClient;
  readonly db: Database;
  readonly pods: number;
}

/** Archives that new hosts have; containers that were unpacked from it own all of their disk and can be migrated. */
const archive = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst";
const orderTimeoutMs = 900_000;
const settleTimeoutMs = 180_000;
/** A host that says nothing is offline after half a minute, and a little later where the machine has much to do. */
const offlineWithinMs = 45_000;
const ordersAtOnce = 4;

/** Fills the fleet, puts it under load, drains a host while another one fails, and checks. */
export async function playFleetStory(stage: FleetStage): Promise<FleetReport> {
  const watch = watchDoubleRuns(stage.hosts);
  try {
    await fill(stage);
    stage.say(`${stage.pods} pods are active on ${stage.hosts.length} hosts, under load and metered`);
    const drained = await fullest(stage);
    const outage = await drainThroughOutage(stage, drained);
    stage.say(`drain of ${drained.name}: ${outage.drain.state} (${outage.drain.outcome ?? ""})`);
    const { found, away } = await settled(stage);
    return judge(stage, { drained, outage, found, away, doubleRuns: watch.stop() });
  } finally {
    watch.stop();
  }
}

/** Orders all pods, a few at a time as customers do, and puts load on those that run. */
async function fill(stage: FleetStage): Promise<void> {
  let next = 0;
  const orderOn = async (): Promise<void> => {
    for (let index = next++; index < stage.pods; index = next++) await order(stage, index);
  };
  await Promise.all(Array.from({ length: ordersAtOnce }, orderOn));
  stage.say(`ordered ${stage.pods} pods`);
  await until("all pods are active", orderTimeoutMs, async () => {
    const [row] = await stage.db.query<{ active: bigint; failed: bigint }>(sql`
      SELECT count(*) FILTER (WHERE status = 'active' AND observed_power = 'running') AS active, count(*) FILTER (WHERE status = 'failed') AS failed FROM cloud_pods`);
    if (row !== undefined && row.failed > 0n) throw new Error(`${row.failed} pods failed`);
    return row?.active === BigInt(stage.pods) ? true : undefined;
  });
  for (const { simulated } of stage.hosts)
    for (const { vmid, running } of await simulated.containers())
      if (running) await simulated.setLoad(vmid, workingLoad);
  await until("all pods are metered", orderTimeoutMs, async () => {
    const [row] = await stage.db.query<{ pods: bigint }>(
      sql`SELECT count(DISTINCT pod_id) AS pods FROM cloud_pod_usage_samples`,
    );
    return row?.pods === BigInt(stage.pods) ? true : undefined;
  });
}

/** Every other one is a linked clone, which Proxmox does not migrate: it moves by an archive. */
async function order({ api }: FleetStage, index: number): Promise<void> {
  const hostname = `fleet-${index + 1}`;
  const wish = { planCode: "STARTER", hostname, ...(index % 2 === 0 ? { template: archive } : {}) };
  await orderPod(api, wish, hostname, orderTimeoutMs);
}

/** The host with the most pods. */
async function fullest({ db, hosts }: FleetStage): Promise<DemoHost> {
  const [row] = await db.query<{ name: string }>(sql`
    SELECT n.name FROM cloud_pods p JOIN nodes n ON n.id = p.node_id GROUP BY n.name ORDER BY count(*) DESC, n.name LIMIT 1`);
  return hosts.find(({ name }) => name === row?.name) ?? noHost();
}

/**
 * The invariants once every spool has been acknowledged, every copy that was left behind is gone, and what stood still
 * with its host runs again.
 */
async function settled(stage: FleetStage): Promise<{ found: Invariants; away: string[] }> {
  const deadline = Date.now() + settleTimeoutMs;
  for (;;) {
    const found = await checkInvariants(stage.db, stage.hosts);
    const away = await notRunning(stage);
    if ((faultsOf(found).length === 0 && away.length === 0) || Date.now() > deadline) return { found, away };
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
}

/** Pods that do not run where they are placed. */
async function notRunning({ db, hosts }: FleetStage): Promise<string[]> {
  const placed = await db.query<{ hostname: string; vmid: number; node: string }>(sql`
    SELECT p.hostname, p.vmid, n.name AS node FROM cloud_pods p LEFT JOIN nodes n ON n.id = p.node_id ORDER BY p.vmid`);
  const running = new Set<string>();
  for (const { name, simulated } of hosts)
    for (const container of await simulated.containers())
      if (container.running) running.add(`${name} ${container.vmid}`);
  return placed.filter(({ node, vmid }) => !running.has(`${node} ${vmid}`)).map(({ hostname }) => hostname);
}

function judge(
  stage: FleetStage,
  facts: {
    readonly drained: DemoHost;
    readonly outage: DrainThroughOutage;
    readonly found: Invariants;
    readonly doubleRuns: DoubleRuns;
    readonly away: readonly string[];
  },
): FleetReport {
  const { drained, outage, found, doubleRuns, away } = facts;
  const { drain, killed, offlineAfterMs } = outage;
  const moved = drain.pods.filter(({ state }) => state === "moved");
  const strategies = Object.fromEntries(
    Map.groupBy(moved, ({ strategy }) => strategy ?? "none")
      .entries()
      .map(([name, pods]) => [name, pods.length]),
  );
  const reasons = [
    ...faultsOf(found),
    ...(found.samplesStored === 0 ? ["no sample was stored"] : []),
    ...(doubleRuns.seconds > 0 ? [`ran twice: ${doubleRuns.seen.join(", ")}`] : []),
    ...(drain.state === "drained" && moved.length === drain.pods.length
      ? []
      : [`the drain is ${drain.state}: ${whyNot(drain)}`]),
    ...(offlineAfterMs !== null && offlineAfterMs > offlineWithinMs
      ? [`${killed.name} was offline only after ${offlineAfterMs} ms`]
      : []),
    ...(away.length > 0 ? [`do not run: ${away.join(", ")}`] : []),
  ];
  return {
    ok: reasons.length === 0,
    hosts: stage.hosts.length,
    pods: stage.pods,
    drained: drained.name,
    killed: killed.name,
    killedOfflineAfterMs: offlineAfterMs,
    replanned: outage.replanned,
    podsMoved: moved.length,
    strategies,
    downtimeP50Ms: drain.downtimeMs?.p50 ?? Number.NaN,
    downtimeP95Ms: drain.downtimeMs?.p95 ?? Number.NaN,
    downtimeMaxMs: drain.downtimeMs?.max ?? Number.NaN,
    drainSeconds: Math.round((Date.parse(drain.finishedAt ?? "") - Date.parse(drain.startedAt)) / 1_000),
    ...found,
    doubleRunSeconds: doubleRuns.seconds,
    reasons,
  };
}

function noHost(): never {
  throw new Error("there is no such host");
}
