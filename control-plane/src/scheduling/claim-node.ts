import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Candidate } from "./rank-nodes.ts";

/** A pod and what it will occupy. */
export interface NewClaim {
  readonly tenantId: string;
  readonly podId: string;
  readonly vmid: number;
  readonly generation: bigint;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/**
 * Candidates offered at once, best first. Small at first, so that the best ones are preferred; then larger,
 * because walking a fleet in small steps would take hundreds of statements.
 */
const windows = [16, 128, 1_024, Infinity];

/**
 * Claims the first of the ranked candidates that still fits and that nobody else is claiming at this
 * moment; only when all that fit are being claimed it waits for one. Writes the claim, the allocated
 * capacity of node and storage, and the placement history, in one statement.
 *
 * Locks: the node's capacity, then its storage. It must come after every other lock of the transaction.
 * @returns the claimed candidate, or undefined when none fits any more
 */
export async function claimNode(
  tx: Queryable,
  claim: NewClaim,
  candidates: readonly Candidate[],
): Promise<Candidate | undefined> {
  let open = candidates;
  for (let start = 0, index = 0; start < open.length; index++) {
    const end = start + (windows[index] ?? Infinity);
    const offered = open.slice(start, end);
    const outcome = await attempt(tx, claim, offered, "skip");
    if (outcome?.claimed === true) return outcome.candidate;
    // The storage filled up between reading and locking: no candidate on it fits.
    if (outcome !== undefined) open = open.filter(({ storage }) => storage.id !== outcome.candidate.storage.id);
    else start = end;
  }
  return await claimWaiting(tx, claim, open);
}

/** Waits for rows that others hold. Ascending node ids, so that two who wait cannot wait for each other. */
async function claimWaiting(
  tx: Queryable,
  claim: NewClaim,
  candidates: readonly Candidate[],
): Promise<Candidate | undefined> {
  let open = candidates.toSorted((a, b) => (a.node.id < b.node.id ? -1 : 1));
  while (open.length > 0) {
    const outcome = await attempt(tx, claim, open, "wait");
    if (outcome === undefined) return undefined;
    if (outcome.claimed) return outcome.candidate;
    open = open.filter(({ storage }) => storage.id !== outcome.candidate.storage.id);
  }
  return undefined;
}

interface Outcome {
  readonly candidate: Candidate;
  /** False: the node was there to take, its storage no longer. */
  readonly claimed: boolean;
}

async function attempt(
  tx: Queryable,
  claim: NewClaim,
  offered: readonly Candidate[],
  locked: "skip" | "wait",
): Promise<Outcome | undefined> {
  const skip = locked === "skip" ? sql`SKIP LOCKED` : sql``;
  const nodeIds = offered.map(({ node }) => node.id);
  const storageIds = offered.map(({ storage }) => storage.id);
  const { cores, memoryMb, diskGb } = claim;
  // Sharing the node's own row makes a cordon wait for claims that began before it, and every later claim see it.
  const [row] = await tx.query<{ nodeId: string; claimed: boolean }>(sql`
    WITH picked AS MATERIALIZED (
      SELECT c.node_id, s.id AS storage_id
      FROM unnest(${nodeIds}::uuid[], ${storageIds}::uuid[]) WITH ORDINALITY AS offered (node_id, storage_id, rank)
      JOIN node_capacity c ON c.node_id = offered.node_id
      JOIN nodes n ON n.id = offered.node_id
      JOIN node_status st ON st.node_id = offered.node_id
      JOIN storages s ON s.id = offered.storage_id
      WHERE n.schedulable AND n.removed_at IS NULL AND st.state = 'online' AND st.quorate IS NOT FALSE
        AND c.cpu_allocated + ${cores} <= c.cpu_allocatable
        AND c.memory_allocated_mb + ${memoryMb} <= c.memory_allocatable_mb
        AND s.allocated_gb + ${diskGb} <= s.allocatable_gb
      ORDER BY offered.rank LIMIT 1
      FOR NO KEY UPDATE OF c ${skip} FOR SHARE OF n ${skip}),
    stored AS (
      UPDATE storages s SET allocated_gb = s.allocated_gb + ${diskGb} FROM picked
      WHERE s.id = picked.storage_id AND s.allocated_gb + ${diskGb} <= s.allocatable_gb
      RETURNING picked.node_id, s.id AS storage_id),
    allocated AS (
      UPDATE node_capacity c
      SET cpu_allocated = c.cpu_allocated + ${cores}, memory_allocated_mb = c.memory_allocated_mb + ${memoryMb}
      FROM stored WHERE c.node_id = stored.node_id
      RETURNING c.node_id, stored.storage_id),
    claimed AS (
      INSERT INTO node_claims (id, tenant_id, pod_id, node_id, storage_id, generation, cpu, memory_mb, disk_gb)
      SELECT ${newId()}, ${claim.tenantId}, ${claim.podId}, node_id, storage_id, ${claim.generation}, ${cores}, ${memoryMb}, ${diskGb}
      FROM allocated RETURNING node_id),
    history AS (
      INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation)
      SELECT ${newId()}, ${claim.tenantId}, ${claim.podId}, node_id, ${claim.vmid}, ${claim.generation} FROM claimed)
    SELECT picked.node_id AS "nodeId", EXISTS (SELECT FROM claimed) AS claimed FROM picked`);
  if (row === undefined) return undefined;
  const candidate = offered.find(({ node }) => node.id === row.nodeId);
  if (candidate === undefined) throw new Error(`claimed node ${row.nodeId} that was not offered`);
  return { candidate, claimed: row.claimed };
}
