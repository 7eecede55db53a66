import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { DemoHost } from "./demo-hosts.ts";

/** What the demo proves at its end; every figure but the first two is to be zero. */
export interface Invariants {
  readonly samplesSent: number;
  readonly samplesStored: number;
  /** Written to a spool and not stored, refused or waiting. */
  readonly samplesLost: number;
  /** Stored more than once, or overlapping another of the same container on the same host. */
  readonly samplesDuplicated: number;
  /** Hosts and storages that promise more than they have, or whose books do not balance. */
  readonly oversell: number;
  /** Containers and disks without a pod, and pods without their container. */
  readonly orphans: number;
}

/** What of them is not as it must be, in words; empty when all is well. */
export function faultsOf(found: Invariants): string[] {
  const zero = ["samplesLost", "samplesDuplicated", "oversell", "orphans"] as const;
  return zero.filter((name) => found[name] !== 0).map((name) => `${name} is ${found[name]}`);
}

/** Looks into the database, the agents' spools and the hosts themselves. */
export async function checkInvariants(db: Database, hosts: readonly DemoHost[]): Promise<Invariants> {
  const sent = hosts.flatMap((host) => spooledSamples(host));
  const stored = await storedSamples(db);
  const lost = [...new Set(sent)].filter((key) => !stored.has(key));
  return {
    samplesSent: sent.length,
    samplesStored: stored.size,
    samplesLost: lost.length,
    samplesDuplicated: await duplicates(db),
    oversell: await oversold(db),
    orphans: await orphans(db, hosts),
  };
}

/** Every sample that an agent has offered, acknowledged or not; merged ones count as one. */
function spooledSamples(host: DemoHost): string[] {
  const path = join(host.stateDirectory, "spool.db");
  if (!existsSync(path)) return [];
  const spool = new DatabaseSync(path, { readOnly: true, timeout: 5_000 });
  try {
    const batches = spool.prepare("SELECT payload FROM batches WHERE is_timed = 1").all();
    return batches.flatMap(({ payload }) => {
      if (!(payload instanceof Uint8Array))
        throw new Error(`the spool of ${host.name} holds something else than batches`);
      return SampleBatch.decode(payload).samples.map((sample) => `${sample.podId} ${sample.endMs}`);
    });
  } finally {
    spool.close();
  }
}

async function storedSamples(db: Database): Promise<Set<string>> {
  const rows = await db.query<{ key: string }>(sql`
    SELECT pod_id || ' ' || (extract(epoch FROM sample_time) * 1000)::bigint AS key FROM cloud_pod_usage_samples
    UNION ALL SELECT pod_id || ' ' || (extract(epoch FROM sample_time) * 1000)::bigint FROM cloud_pod_usage_late_samples`);
  return new Set(rows.map((row) => row.key));
}

async function duplicates(db: Database): Promise<number> {
  const [row] = await db.query<{ count: bigint }>(sql`
    SELECT count(*) FROM cloud_pod_usage_samples a JOIN cloud_pod_usage_samples b
      ON a.pod_id = b.pod_id AND a.spool_no = b.spool_no AND (a.sample_time, a.seq) < (b.sample_time, b.seq) AND b.start_time < a.sample_time`);
  return Number(row?.count ?? 0);
}

async function oversold(db: Database): Promise<number> {
  const [row] = await db.query<{ count: bigint }>(sql`
    SELECT (SELECT count(*) FROM node_capacity c WHERE cpu_allocated > cpu_allocatable OR memory_allocated_mb > memory_allocatable_mb
        OR (cpu_allocated::integer, memory_allocated_mb::integer) IS DISTINCT FROM
          (SELECT (coalesce(sum(cpu), 0)::integer, coalesce(sum(memory_mb), 0)::integer) FROM node_claims k WHERE k.node_id = c.node_id))
      + (SELECT count(*) FROM storages s WHERE allocated_gb > allocatable_gb
        OR allocated_gb <> (SELECT coalesce(sum(disk_gb), 0) FROM node_claims k WHERE k.storage_id = s.id)) AS count`);
  return Number(row?.count ?? 0);
}

async function orphans(db: Database, hosts: readonly DemoHost[]): Promise<number> {
  const pods = await db.query<{ vmid: number; node: string }>(sql`
    SELECT p.vmid, n.name AS node FROM cloud_pods p JOIN nodes n ON n.id = p.node_id WHERE p.status IN ('active', 'suspended')`);
  const wanted = new Set(pods.map((pod) => `${pod.node} ${pod.vmid}`));
  const found = await Promise.all(hosts.map((host) => containersOf(host)));
  const disks = await Promise.all(hosts.map((host) => disksOf(host)));
  // A disk belongs to the container whose number it has; each has one.
  return (
    wanted.symmetricDifference(new Set(found.flat())).size +
    disks.flat().filter((owner, index, all) => !wanted.has(owner) || all.indexOf(owner) !== index).length
  );
}

/** Whatever is there besides the template: a container that nobody marked is an orphan too. */
async function containersOf(host: DemoHost): Promise<string[]> {
  const containers = await host.simulated.containers();
  return containers.filter(({ config }) => config["template"] !== "1").map(({ vmid }) => `${host.name} ${vmid}`);
}

async function disksOf({ name, simulated }: DemoHost): Promise<string[]> {
  // The columns are Volid, Format, Type, Size and VMID.
  const { stdout } = await promisify(execFile)(simulated.paths.pvesm, ["list", "local-lvm"]);
  const rows = stdout.trim().split("\n").slice(1);
  const owners = rows.map((row) => Number(row.trim().split(/\s+/).at(-1)));
  return owners.filter((vmid) => vmid !== simulated.templateVmid).map((vmid) => `${name} ${vmid}`);
}
