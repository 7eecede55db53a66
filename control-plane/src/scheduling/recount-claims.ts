import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";

/** A node or storage whose allocated figure was not the sum of its claims. */
export interface ClaimDifference {
  readonly kind: "node" | "storage";
  readonly id: string;
  readonly allocated: Readonly<Record<string, number>>;
  readonly claimed: Readonly<Record<string, number>>;
}

/**
 * Compares what is allocated on every node and storage with the sum of the claims, puts wrong figures
 * right and writes each repair to the audit log. The two move together, so a difference is a fault of ours.
 * @returns what was repaired
 */
export async function recountClaims(db: Database): Promise<ClaimDifference[]> {
  const suspects = [...(await readNodes(db, null)), ...(await readStorages(db, null))];
  const repaired: ClaimDifference[] = [];
  for (const suspect of suspects) {
    const difference = await db.transaction((tx) =>
      suspect.kind === "node" ? repairNode(tx, suspect.id) : repairStorage(tx, suspect.id),
    );
    if (difference !== undefined) repaired.push(difference);
  }
  return repaired;
}

async function repairNode(tx: Queryable, id: string): Promise<ClaimDifference | undefined> {
  await tx.query(sql`SELECT FROM node_capacity WHERE node_id = ${id} FOR NO KEY UPDATE`);
  // A statement of its own: it sees what the holders of the lock before us committed.
  const [difference] = await readNodes(tx, id);
  if (difference === undefined) return undefined;
  await allowAnyFigure(tx);
  await tx.execute(sql`
    UPDATE node_capacity SET cpu_allocated = ${difference.claimed["cpu"]}, memory_allocated_mb = ${difference.claimed["memoryMb"]}
    WHERE node_id = ${id}`);
  await audit(tx, difference);
  return difference;
}

async function repairStorage(tx: Queryable, id: string): Promise<ClaimDifference | undefined> {
  await tx.query(sql`SELECT FROM storages WHERE id = ${id} FOR NO KEY UPDATE`);
  const [difference] = await readStorages(tx, id);
  if (difference === undefined) return undefined;
  await allowAnyFigure(tx);
  await tx.execute(sql`UPDATE storages SET allocated_gb = ${difference.claimed["diskGb"]} WHERE id = ${id}`);
  await audit(tx, difference);
  return difference;
}

/** The guard against overselling would refuse the truth when more is claimed than there is. Ends with the transaction. */
async function allowAnyFigure(tx: Queryable): Promise<void> {
  await tx.query(sql`SELECT set_config('cloudpods.recounting', 'on', true)`);
}

async function audit(tx: Queryable, difference: ClaimDifference): Promise<void> {
  await recordAudit(tx, {
    actor: systemActor("claim-recount"),
    requestId: undefined,
    tenantId: undefined,
    action: "capacity.repair",
    targetType: difference.kind,
    targetId: difference.id,
    detail: { allocated: difference.allocated, claimed: difference.claimed },
  });
}

async function readNodes(db: Queryable, id: string | null): Promise<ClaimDifference[]> {
  const rows = await db.query<{
    id: string;
    cpu: number;
    memory: number;
    cpuClaimed: number;
    memoryClaimed: number;
  }>(sql`
    SELECT c.node_id AS id, c.cpu_allocated AS cpu, c.memory_allocated_mb AS memory,
      coalesce(k.cpu, 0) AS "cpuClaimed", coalesce(k.memory, 0) AS "memoryClaimed"
    FROM node_capacity c LEFT JOIN (
      SELECT node_id, sum(cpu)::integer AS cpu, sum(memory_mb)::integer AS memory FROM node_claims GROUP BY node_id) k USING (node_id)
    WHERE (${id}::uuid IS NULL OR c.node_id = ${id}::uuid)
      AND (c.cpu_allocated, c.memory_allocated_mb) <> (coalesce(k.cpu, 0), coalesce(k.memory, 0))
    ORDER BY c.node_id`);
  return rows.map((row) => ({
    kind: "node",
    id: row.id,
    allocated: { cpu: row.cpu, memoryMb: row.memory },
    claimed: { cpu: row.cpuClaimed, memoryMb: row.memoryClaimed },
  }));
}

async function readStorages(db: Queryable, id: string | null): Promise<ClaimDifference[]> {
  const rows = await db.query<{ id: string; allocated: number; claimed: number }>(sql`
    SELECT s.id, s.allocated_gb AS allocated, coalesce(k.disk, 0) AS claimed
    FROM storages s LEFT JOIN (
      SELECT storage_id, sum(disk_gb)::integer AS disk FROM node_claims GROUP BY storage_id) k ON k.storage_id = s.id
    WHERE (${id}::uuid IS NULL OR s.id = ${id}::uuid) AND s.allocated_gb <> coalesce(k.disk, 0)
    ORDER BY s.id`);
  return rows.map((row) => ({
    kind: "storage",
    id: row.id,
    allocated: { diskGb: row.allocated },
    claimed: { diskGb: row.claimed },
  }));
}
