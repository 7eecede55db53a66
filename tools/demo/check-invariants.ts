import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
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
  /** Containers of ours without a pod, and pods without their container. */
  readonly orphans: number;
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

/** Every sample that an agent wrote down, acknowledged or not; merged ones count as one. */
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
        OR (cpu_allocated, memory_allocated_mb) IS DISTINCT FROM
          (SELECT (coalesce(sum(cpu), 0)::integer, coalesce(sum(memory_mb), 0)::integer) FROM node_claims k WHERE k.node_id = c.node_id))
      + (SELECT count(*) FROM storages s WHERE allocated_gb > allocatable_gb
        OR allocated_gb <> (SELECT coalesce(sum(disk_gb), 0) FROM node_claims k WHERE k.storage_id = s.id)) AS count`);
  return Number(row?.count ?? 0);
}

async function orphans(db: Database, hosts: readonly DemoHost[]): Promise<number> {
  const pods = await db.query<{ vmid: number; node: string }>(sql`
    SELECT p.vmid, n.name AS node FROM cloud_pods p JOIN nodes n ON n.id = p.node_id WHERE p.status IN ('active', 'suspended')`);
  const wanted = new Set(pods.map((pod) => `${pod.node} ${pod.vmid}`));
  const found = new Set<string>();
  for (const host of hosts) {
    for (const container of await host.simulated.containers()) {
      const tags = (container.config["tags"] ?? "").split(";");
      if (tags.includes("cloudpods") && container.config["template"] !== "1")
        found.add(`${host.name} ${container.vmid}`);
    }
  }
  return wanted.symmetricDifference(found).size;
}
