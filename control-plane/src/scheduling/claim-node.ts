import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { prepared, sql } from "../platform/sql.ts";
import type { Candidate } from "./rank-nodes.ts";

/** What a place is for: a new home, at once, or one that a pod moves to and lives in from the move's switch on. */
export type ClaimPurpose = "home" | "move";

/** A pod and what it will occupy. */
export interface NewClaim {
  readonly tenantId: string;
  readonly podId: string;
  readonly vmid: number;
  readonly generation: bigint;
  /** Absent: a home. */
  readonly purpose?: ClaimPurpose;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** How a claim ended. */
export interface ClaimOutcome {
  /** What was claimed; undefined when no candidate fits any more. */
  readonly chosen: Candidate | undefined;
  /** Better ones that others were claiming at that moment or that have no room any more. */
  readonly passedOver: readonly Candidate[];
}

/**
 * Candidates offered at once, best first. Few at first, so that the best are preferred; then more, because
 * walking a large fleet in small steps would take hundreds of statements.
 */
const offerSizes = [16, 128, 1_024, Infinity];

/**
 * Claims the first of the ranked candidates that still fits and that nobody else is claiming at this
 * moment; only when all that fit are being claimed it waits for one. Writes the claim, the allocated
 * capacity of node and storage, and for a home the placement history, in one statement.
 *
 * Locks: the node's capacity, then its storage. It must come after every other lock of the transaction.
 */
export async function claimNode(
  tx: Queryable,
  claim: NewClaim,
  candidates: Iterable<Candidate>,
): Promise<ClaimOutcome> {
  const ranked = candidates[Symbol.iterator]();
  const passedOver: Candidate[] = [];
  for (const size of offerSizes) {
    const offered = takeNext(ranked, size);
    const chosen = await claimOneOf(tx, claim, offered, "skip");
    passedOver.push(...(chosen === undefined ? offered : offered.slice(0, offered.indexOf(chosen))));
    if (chosen !== undefined) return { chosen, passedOver };
    if (offered.length < size) break;
  }
  // In one order for all, so that two who wait do not wait for each other.
  const contested = passedOver.toSorted((a, b) => (a.node.id < b.node.id ? -1 : 1));
  return { chosen: await claimOneOf(tx, claim, contested, "wait"), passedOver };
}

/** Those of the candidates that have no room any more. */
export async function findFull(
  tx: Queryable,
  { cores, memoryMb, diskGb }: Pick<NewClaim, "cores" | "memoryMb" | "diskGb">,
  candidates: readonly Candidate[],
): Promise<string[]> {
  const rows = await tx.query<{ nodeId: string }>(
    prepared(sql`
        SELECT c.node_id AS "nodeId"
        FROM unnest(${uuidArray(candidates.map(({ node }) => node.id))}::uuid[], ${uuidArray(candidates.map(({ storage }) => storage.id))}::uuid[])
          AS passed (node_id, storage_id)
        JOIN node_capacity c ON c.node_id = passed.node_id JOIN storages s ON s.id = passed.storage_id
        WHERE c.cpu_allocated + ${cores} > c.cpu_allocatable OR c.memory_allocated_mb + ${memoryMb} > c.memory_allocatable_mb
          OR s.allocated_gb + ${diskGb} > s.allocatable_gb`),
  );
  return rows.map(({ nodeId }) => nodeId);
}

function takeNext(ranked: Iterator<Candidate>, count: number): Candidate[] {
  const taken: Candidate[] = [];
  while (taken.length < count) {
    const { value, done } = ranked.next();
    if (done === true) break;
    taken.push(value);
  }
  return taken;
}

/** What to do about rows that others hold. */
type WhenLocked = "skip" | "wait";

async function claimOneOf(
  tx: Queryable,
  claim: NewClaim,
  offered: readonly Candidate[],
  whenLocked: WhenLocked,
): Promise<Candidate | undefined> {
  let open = offered;
  while (open.length > 0) {
    const outcome = await attempt(tx, claim, open, whenLocked);
    if (outcome === undefined) return undefined;
    const candidate = open.find(({ node }) => node.id === outcome.nodeId);
    if (candidate === undefined) throw new Error(`node ${outcome.nodeId} was claimed without being offered`);
    if (outcome.isClaimed) return candidate;
    // The storage filled up between reading and locking: nothing on it fits.
    open = open.filter(({ storage }) => storage.id !== candidate.storage.id);
  }
  return undefined;
}

interface Attempt {
  readonly nodeId: string;
  /** False: the node was there to take, its storage no longer. */
  readonly isClaimed: boolean;
}

async function attempt(
  tx: Queryable,
  claim: NewClaim,
  offered: readonly Candidate[],
  whenLocked: WhenLocked,
): Promise<Attempt | undefined> {
  const skip = whenLocked === "skip" ? sql`SKIP LOCKED` : sql``;
  const nodeIds = uuidArray(offered.map(({ node }) => node.id));
  const storageIds = uuidArray(offered.map(({ storage }) => storage.id));
  const { cores, memoryMb, diskGb, purpose = "home" } = claim;
  // The share lock on the node's own row makes a cordon wait for the claims that did not see it.
  const statement = sql`
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
      INSERT INTO node_claims (id, tenant_id, pod_id, node_id, storage_id, generation, purpose, cpu, memory_mb, disk_gb)
      SELECT ${newId()}, ${claim.tenantId}, ${claim.podId}, node_id, storage_id, ${claim.generation}, ${purpose}, ${cores}, ${memoryMb}, ${diskGb}
      FROM allocated RETURNING node_id),
    history AS (
      INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation)
      SELECT ${newId()}, ${claim.tenantId}, ${claim.podId}, node_id, ${claim.vmid}, ${claim.generation} FROM claimed
      WHERE ${purpose} = 'home')
    SELECT node_id AS "nodeId", EXISTS (SELECT FROM claimed) AS "isClaimed" FROM picked`;
  const [row] = await tx.query<Attempt>(prepared(statement));
  return row;
}

/** An array in PostgreSQL's notation; UUIDs need none of the quoting that the driver would spend its time on. */
function uuidArray(ids: readonly string[]): string {
  return `{${ids.join(",")}}`;
}
