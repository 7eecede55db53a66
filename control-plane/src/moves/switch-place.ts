import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { releaseClaim } from "../scheduling/change-claim.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { endMove, noteInstants, type Move } from "./move.ts";

/**
 * From now on samples of the target count for the pod: its host may run it before we hear of it, and what both hosts
 * measured of the same minute is honest on both sides.
 */
export async function beginStay(tx: Queryable, pod: Pick<Pod, "vmid">, move: Move, now: Date): Promise<void> {
  await tx.execute(sql`
    INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation, placed_from)
    VALUES (${newId()}, ${move.tenantId}, ${move.podId}, ${move.toNodeId}, ${pod.vmid}, ${move.toGeneration}, ${now})
    ON CONFLICT (pod_id, generation) DO NOTHING`);
}

/**
 * The target owns the pod: its row, the history of its places, and its claim change together, so there is no instant
 * in which two hosts or none may run it. What is wanted of the pod stays as it was.
 */
export async function switchPlace(
  tx: Queryable,
  pod: Pod,
  move: Move,
  now: Date,
  requestId: string | null,
): Promise<void> {
  await beginStay(tx, pod, move, now);
  const switched = await tx.execute(sql`
    UPDATE cloud_pods SET node_id = ${move.toNodeId}, generation = ${move.toGeneration}, storage = ${move.storage}, bridge = ${move.bridge},
      pool = ${move.pool}, placement_verdict = ${JSON.stringify(move.verdict)},
      observed_power = ${move.runningAt === null ? "stopped" : "running"}, observed_at = ${now}, version = version + 1, updated_at = now()
    WHERE id = ${pod.id} AND node_id = ${move.fromNodeId} AND generation = ${move.fromGeneration}`);
  if (switched !== 1) throw new Error(`pod ${pod.id} is not where move ${move.id} began`);
  await tx.execute(sql`
    UPDATE cloud_pod_placements SET placed_to = ${now} WHERE pod_id = ${pod.id} AND generation = ${move.fromGeneration} AND placed_to IS NULL`);
  await tx.execute(
    sql`UPDATE node_claims SET purpose = 'home' WHERE pod_id = ${pod.id} AND generation = ${move.toGeneration}`,
  );
  // A disk that stayed where it is was not claimed twice: the claim of the source hands it over.
  await tx.execute(sql`
    WITH held AS (
      SELECT t.id AS target_id, s.id AS source_id, s.disk_gb FROM node_claims t JOIN node_claims s
        ON s.pod_id = t.pod_id AND s.generation = ${move.fromGeneration} AND s.storage_id = t.storage_id
      WHERE t.pod_id = ${pod.id} AND t.generation = ${move.toGeneration} AND t.disk_gb = 0)
    UPDATE node_claims k SET disk_gb = CASE WHEN k.id = held.target_id THEN held.disk_gb ELSE 0 END
    FROM held WHERE k.id IN (held.target_id, held.source_id)`);
  await noteInstants(tx, move.id, now, "switched");
  await recordAudit(tx, {
    actor: systemActor("moves"),
    requestId: requestId ?? undefined,
    tenantId: pod.tenantId,
    action: "pod.moved",
    targetType: "pod",
    targetId: pod.id,
    detail: { ...auditOf(move), generation: move.toGeneration },
  });
}

/** What the audit log tells of a move. */
export function auditOf({ fromNode: from, toNode: to, purpose, strategy }: Move): Readonly<Record<string, unknown>> {
  return { from, to, purpose, strategy };
}

/** Gives up a place that was only kept: nothing of the pod was ever there. */
export async function releaseMove(tx: Queryable, move: Move, why: { code: string; message: string }): Promise<void> {
  await endMove(tx, move.id, "released", why);
  await releaseClaim(tx, move.podId, move.toGeneration);
}
