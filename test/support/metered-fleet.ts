import { newId } from "@cloudpods/shared/ids";
import type { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { hostingCache } from "../../control-plane/src/samples-intake/hosting.ts";
import { openStorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { storeMessages } from "../../control-plane/src/samples-intake/store-messages.ts";
import { usageDays } from "../../control-plane/src/samples-intake/usage-days.ts";
import { batchOf, payloadOf, sampleOf, seedFleet, type FleetNode, type FleetPod } from "./telemetry-fleet.ts";
import type { TestDatabase } from "./postgres.ts";

/** What a pod is from an instant on. */
export interface Allocation {
  readonly from: Date;
  readonly to?: Date;
  readonly mode?: "plan" | "metered";
  readonly planCode?: string;
  readonly cores?: number;
  readonly memoryMb?: number;
  readonly diskGb?: number;
}

/** Writes what a pod is for a time; 2 cores, 1024 MB and 20 GB, metered, unless said otherwise. */
export async function allocate(db: Pick<Database, "execute">, pod: FleetPod, what: Allocation): Promise<void> {
  await db.execute(sql`
    INSERT INTO cloud_pod_allocations (id, tenant_id, pod_id, valid, plan_code, billing_mode, cores, memory_mb, disk_gb)
    VALUES (${newId()}, ${pod.tenantId}, ${pod.podId}, tstzrange(${what.from}, ${what.to ?? null}), ${what.planCode ?? null},
      ${what.mode ?? "metered"}, ${what.cores ?? 2}, ${what.memoryMb ?? 1024}, ${what.diskGb ?? 20})`);
}

/** Hosts whose spools deliver batches straight into the store, at any moment that the test chooses. */
export interface DeliveringFleet {
  readonly nodes: readonly FleetNode[];
  /** One batch of a host, received at `nowMs`; minutes end at `endMs`. Without samples all pods have a plausible one. */
  deliver(node: FleetNode, endMs: number, changes?: Partial<SampleBatch> & { nowMs?: number }): Promise<void>;
  /** Each minute of an hour of all pods of a host. */
  deliverHour(node: FleetNode, hourStart: Date, sample?: (pod: FleetPod, endMs: number) => Sample): Promise<void>;
  close(): Promise<void>;
}

/** Makes hosts with pods. Placements began 60 days before `since`. */
export async function deliveringFleet(
  db: TestDatabase,
  size: { readonly nodes: number; readonly podsPerNode: number; readonly since: Date },
): Promise<DeliveringFleet> {
  const nodes = await seedFleet(db.system, size);
  await db.system.execute(sql`
    UPDATE cloud_pod_placements SET placed_from = ${size.since}::timestamptz - interval '60 days'
    WHERE node_id = ANY(${nodes.map((node) => node.nodeId)}::uuid[])`);
  const pool = openStorePool(db.systemUrl, 2);
  const days = usageDays(pool);
  const spools = new Map(nodes.map((node) => [node.nodeId, { id: newId(), seq: 0 }]));
  async function deliver(
    node: FleetNode,
    endMs: number,
    { nowMs = endMs + 1_000, ...changes }: Partial<SampleBatch> & { nowMs?: number } = {},
  ): Promise<void> {
    const spool = spools.get(node.nodeId);
    if (spool === undefined) throw new Error("a host of another fleet");
    const batch = batchOf(node, spool.id, { from: ++spool.seq }, endMs, changes);
    const message = { nodeId: node.nodeId, payload: payloadOf(batch), receivedAtMs: nowMs };
    const context = { pool, hosting: hostingCache(pool, () => nowMs), days, clock: () => nowMs };
    const outcome = await storeMessages(context, [message]);
    if (outcome.rejected.length + outcome.deadLetters.length > 0)
      throw new Error(`not stored: ${outcome.rejected.join()} ${outcome.deadLetters.join()}`);
  }
  return {
    nodes,
    deliver,
    async deliverHour(node, hourStart, sample = sampleOf) {
      for (let minute = 1; minute <= 60; minute++) {
        const endMs = hourStart.getTime() + minute * 60_000;
        await deliver(node, endMs, { samples: node.pods.map((pod) => sample(pod, endMs)) });
      }
    },
    close: () => pool.close(),
  };
}
