import { once } from "node:events";
import { openDatabase, sqlState, type Transaction } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { createFleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { NoCapacityError } from "../../control-plane/src/scheduling/no-capacity.ts";
import { placePod } from "../../control-plane/src/scheduling/place-pod.ts";
import { rankForAnyone } from "../../control-plane/src/scheduling/rank-nodes.ts";
import { readSnapshot } from "../../control-plane/src/scheduling/read-snapshot.ts";
import type { UnplacedPod } from "./placement-fleet.ts";

/** What a replica that is a process of its own is told. */
export interface ReplicaJob {
  readonly apiUrl: string;
  readonly pods: readonly UnplacedPod[];
  /** `naive` believes the snapshot and does not look again when it claims. */
  readonly claim: "real" | "naive";
}

/** What it reports at its end. */
export interface ReplicaReport {
  readonly placed: number;
  readonly withoutCapacity: number;
  /** Refused by the database's own guard. */
  readonly guarded: number;
}

const lanes = 4;

process.send?.("ready");
const [job] = (await once(process, "message")) as [ReplicaJob];
const db = openDatabase({ url: job.apiUrl, applicationName: "replica", connectionsMax: lanes });
const fleet = createFleetView();
const report = { placed: 0, withoutCapacity: 0, guarded: 0 };
const waiting = [...job.pods];
await Promise.all(Array.from({ length: lanes }, work));
await db.close();
process.send?.(report satisfies ReplicaReport, () => process.disconnect());

async function work(): Promise<void> {
  for (let pod = waiting.pop(); pod !== undefined; pod = waiting.pop()) {
    const { podId, tenantId, vmid, ...request } = pod;
    const claim = (tx: Transaction): Promise<unknown> =>
      job.claim === "real"
        ? placePod(tx, fleet, { podId, tenantId, vmid, generation: 1n, request })
        : claimBlindly(tx, pod);
    try {
      await db.transaction(claim, { tenantId });
      report.placed += 1;
    } catch (error) {
      if (error instanceof NoCapacityError) report.withoutCapacity += 1;
      else if (sqlState(error) === "CP001") report.guarded += 1;
      else throw error;
    }
  }
}

async function claimBlindly(tx: Transaction, { podId, tenantId, cores, memoryMb, diskGb }: UnplacedPod): Promise<void> {
  const request = { cores, memoryMb, diskGb };
  const ranking = rankForAnyone(request, await readSnapshot(tx));
  const [best] = ranking.candidates;
  if (best === undefined)
    throw new NoCapacityError(request, {
      summary: "",
      at: "",
      chosen: null,
      nodes: 0,
      fitting: 0,
      reasons: [],
      candidates: [],
      rejected: [],
    });
  await tx.execute(sql`
    WITH stored AS (UPDATE storages SET allocated_gb = allocated_gb + ${diskGb} WHERE id = ${best.storage.id}),
      allocated AS (UPDATE node_capacity SET cpu_allocated = cpu_allocated + ${cores}, memory_allocated_mb = memory_allocated_mb + ${memoryMb}
        WHERE node_id = ${best.node.id})
    INSERT INTO node_claims (id, tenant_id, pod_id, node_id, storage_id, generation, cpu, memory_mb, disk_gb)
    VALUES (gen_random_uuid(), ${tenantId}, ${podId}, ${best.node.id}, ${best.storage.id}, 1, ${cores}, ${memoryMb}, ${diskGb})`);
}
