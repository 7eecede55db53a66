import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import {
  cordonNode,
  lockNode,
  recordChange,
  type Cordon,
  type LockedNode,
  type NodeChangeBy,
} from "../nodes/change-node.ts";
import { nodeNotFound } from "../nodes/find-node.ts";
import { isSilent } from "../nodes/host-silence.ts";
import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { selectDrains, type Drain } from "./drain.ts";
import { endDrainOfLostHost } from "./end-drain-of-lost-host.ts";

/** What an operator decides about the emptying of a host. */
export interface DrainOrder {
  readonly reason: string;
  readonly deadlineSeconds: number;
  readonly maxParallel: number;
  /** `fail`: nothing moves unless all pods have a place; `partial`: those that have one move. */
  readonly onNoCapacity: "fail" | "partial";
  /** What becomes of pods that have not moved when time is up. */
  readonly onDeadline: "leave" | "stop-and-restore";
  readonly returnHome: boolean;
}

/** Of an evacuation beyond that. */
export interface EvacuationOrder {
  readonly reason: string;
  readonly maxParallel: number;
  readonly onNoBackup: "keep" | "mark-lost";
}

/** An evacuation waits for hosts with room, and asks again every minute, not for ever. */
const evacuationDeadlineSeconds = 7 * 86_400;

/**
 * Begins to empty a host: it is cordoned, and the loop that drives drains does the rest. Whoever has cordoned it before
 * had his own reason, and perhaps an end: that is so again if the drain comes to nothing. Until then no cordon ends.
 * @throws DomainError `NODE_NOT_FOUND`, `NODE_NOT_ONLINE`, `DRAIN_RUNNING`
 */
export async function startDrain(tx: Transaction, nodeId: string, order: DrainOrder, by: NodeChangeBy): Promise<Drain> {
  const { schedulable } = await lockHost(tx, nodeId);
  await requireDrainable(tx, nodeId);
  if (schedulable) await cordonNode(tx, nodeId, cordonOfDrain(order), by);
  const drain = await insertDrain(tx, nodeId, { ...order, kind: "drain", onNoBackup: "keep" }, by);
  await recordChange(tx, nodeId, by, {
    action: "node.drain",
    kind: "DRAIN_STARTED",
    message: order.reason,
    detail: { drainId: drain.id, ...order },
  });
  return drain;
}

/** What keeps an emptied host closed until somebody opens it. */
export function cordonOfDrain({ reason }: { readonly reason: string }): Cordon {
  return { reason: `drain: ${reason}`, until: undefined };
}

/** Nobody else begins to empty the host or to give it up meanwhile, and its state stays what it is. */
async function lockHost(tx: Transaction, nodeId: string): Promise<LockedNode> {
  const node = await lockNode(tx, nodeId);
  await tx.execute(sql`SELECT FROM node_status WHERE node_id = ${nodeId} FOR SHARE`);
  return node;
}

/**
 * What a drain and its dry run ask first. Whoever goes on to begin one has locked the host; a plan is only read.
 * @throws DomainError as `startDrain`
 */
export async function requireDrainable(tx: Queryable, nodeId: string): Promise<void> {
  const { name, state } = await readHost(tx, nodeId);
  if (state !== "online" && state !== "degraded") {
    throw new DomainError(
      "wrong-state",
      "NODE_NOT_ONLINE",
      `${name} is ${state}: its pods cannot be moved from there. If it is gone for good, evacuate it.`,
      {
        details: { state },
      },
    );
  }
  await refuseSecond(tx, nodeId, ["drain", "evacuation"]);
}

/**
 * Gives a host up and begins to bring its pods back elsewhere. The caller vouches that the host is cut off for good: that
 * nothing of it runs, or can reach what the pods will write to.
 * @throws DomainError `NODE_NOT_FOUND`, `NODE_NOT_GONE`, `DRAIN_RUNNING`
 */
export async function startEvacuation(
  tx: Transaction,
  nodeId: string,
  order: EvacuationOrder,
  by: NodeChangeBy,
): Promise<Drain> {
  // Before the host's row, as a driver locks them.
  await endDrainOfLostHost(tx, nodeId, by);
  await lockHost(tx, nodeId);
  await requireEvacuable(tx, nodeId);
  // One that has begun since is not ended with the host's row in hand.
  await refuseSecond(tx, nodeId, ["drain"]);
  await tx.execute(
    sql`UPDATE node_status SET state = 'lost', state_since = CASE WHEN state = 'lost' THEN state_since ELSE now() END WHERE node_id = ${nodeId}`,
  );
  await cordonNode(tx, nodeId, { reason: `evacuated: ${order.reason}`, until: undefined }, by);
  const drain = await insertDrain(
    tx,
    nodeId,
    {
      ...order,
      kind: "evacuation",
      deadlineSeconds: evacuationDeadlineSeconds,
      onNoCapacity: "partial",
      onDeadline: "leave",
      returnHome: false,
    },
    by,
  );
  await recordChange(tx, nodeId, by, {
    action: "node.evacuate",
    kind: "EVACUATION_STARTED",
    message: order.reason,
    detail: { drainId: drain.id, ...order, confirmFenced: true },
  });
  return drain;
}

/**
 * What an evacuation and its dry run ask first: nothing was heard of the host lately. Whoever goes on to begin one has
 * locked the host; a plan is only read.
 * @throws DomainError as `startEvacuation`
 */
export async function requireEvacuable(tx: Queryable, nodeId: string): Promise<void> {
  const host = await readHost(tx, nodeId);
  const { name, state } = host;
  if (!host.isSilent) {
    const seen = state === "offline" || state === "lost" ? "was heard a moment ago" : `is ${state}`;
    throw new DomainError(
      "wrong-state",
      "NODE_NOT_GONE",
      `${name} ${seen}: its pods may run there. Drain it, or fence it first.`,
      { details: { state } },
    );
  }
  // A drain that is under way ends for it.
  await refuseSecond(tx, nodeId, ["evacuation"]);
}

async function refuseSecond(tx: Queryable, nodeId: string, kinds: readonly Drain["kind"][]): Promise<void> {
  const drain = await findOpenDrain(tx, nodeId);
  if (drain === undefined || !kinds.includes(drain.kind)) return;
  const message = "The node is being drained or evacuated already; cancel that first.";
  throw new DomainError("conflict", "DRAIN_RUNNING", message);
}

/**
 * Asks a drain to end: nothing more begins, what has begun is carried to its end, kept places are given back. The host
 * stays cordoned, as it was before the drain or by it.
 * @throws DomainError `NO_DRAIN`
 */
export async function cancelDrain(tx: Transaction, nodeId: string, by: NodeChangeBy): Promise<Drain> {
  // Before the host's row, as a driver locks them.
  const [asked] = await tx.query<{ id: string }>(sql`
    UPDATE node_drains SET cancel_requested_at = coalesce(cancel_requested_at, now()), version = version + 1
    WHERE node_id = ${nodeId} AND finished_at IS NULL RETURNING id`);
  await lockNode(tx, nodeId);
  if (asked === undefined) throw noDrain();
  await recordChange(tx, nodeId, by, {
    action: "node.drain-cancel",
    kind: "DRAIN_CANCELLED",
    message: "the drain is cancelled",
    detail: { drainId: asked.id },
  });
  return await readDrain(tx, asked.id);
}

/** The drain of a host that is not over. */
async function findOpenDrain(tx: Queryable, nodeId: string): Promise<Drain | undefined> {
  const [drain] = await tx.query<Drain>(sql`${selectDrains} WHERE d.node_id = ${nodeId} AND d.finished_at IS NULL`);
  return drain;
}

/** The refusal where there is nothing to look at or to cancel. */
export function noDrain(message = "The node is not being drained or evacuated."): DomainError {
  return new DomainError("not-found", "NO_DRAIN", message);
}

async function readHost(tx: Queryable, nodeId: string): Promise<{ name: string; state: string; isSilent: boolean }> {
  const [host] = await tx.query<{ name: string; state: string; isSilent: boolean }>(sql`
    SELECT n.name, s.state, ${isSilent} AS "isSilent" FROM nodes n JOIN node_status s ON s.node_id = n.id
    WHERE n.id = ${nodeId} AND n.removed_at IS NULL`);
  if (host === undefined) throw nodeNotFound();
  return host;
}

async function insertDrain(
  tx: Transaction,
  nodeId: string,
  order: DrainOrder & { readonly kind: Drain["kind"]; readonly onNoBackup: Drain["onNoBackup"] },
  by: NodeChangeBy,
): Promise<Drain> {
  const id = newId();
  await tx.execute(sql`
    INSERT INTO node_drains (id, node_id, kind, reason, requested_by, request_id, max_parallel, deadline_at, on_no_capacity, on_deadline, on_no_backup, return_home)
    VALUES (${id}, ${nodeId}, ${order.kind}, ${order.reason}, ${`${by.actor.kind}:${by.actor.id}`}, ${by.requestId ?? id}, ${order.maxParallel},
      now() + ${order.deadlineSeconds} * interval '1 s', ${order.onNoCapacity}, ${order.onDeadline}, ${order.onNoBackup}, ${order.returnHome})`);
  return await readDrain(tx, id);
}

async function readDrain(tx: Queryable, id: string): Promise<Drain> {
  const [drain] = await tx.query<Drain>(sql`${selectDrains} WHERE d.id = ${id}`);
  if (drain === undefined) throw new Error(`there is no drain ${id}`);
  return drain;
}
