import type { Logger } from "pino";
import { giveUpCommand, waitsInVain } from "../nodes/give-up-command.ts";
import { insertCommand } from "../nodes/send-command.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { releaseClaim } from "../scheduling/change-claim.ts";
import { isNothingOfOurs } from "./switch-steps.ts";
import { pauseAfter } from "./retry-pause.ts";
import { tidyMoves } from "./tidy-moves.ts";

/**
 * How long a host that was given up must be back before its stale copies are removed: they were stopped at once, and what
 * was written after the backup is on them alone.
 */
const graceMs = 3_600_000;
const batchMax = 50;

interface LeftCopy {
  readonly podId: string;
  readonly nodeId: string;
  readonly generation: bigint;
  /** The pod has come home: what is there is the pod. */
  readonly isHome: boolean;
  readonly commandState: string | null;
  readonly errorCode: string | null;
}

/** What one pass did. */
export interface LeftCopiesPass {
  /** Hosts that were told to remove something. */
  readonly asked: readonly string[];
  readonly released: number;
}

/**
 * Clears what moves have left on hosts that did not answer then: the copy of a pod that lives elsewhere now is removed as
 * soon as its host is back, and with the host's word the room is free. Claims say where anything may be left. Of a pod
 * that has no place any more nothing is removed: it may be all that there is.
 */
export async function clearLeftCopies(
  { db, log }: { readonly db: Database; readonly log: Logger },
  grace = graceMs,
): Promise<LeftCopiesPass> {
  await tidyMoves(db);
  await giveUpSilent(db);
  // In no fixed order: those that cannot be helped shall not keep others out.
  const left = await db.query<LeftCopy>(sql`${selectLeft(grace)} ORDER BY random() LIMIT ${batchMax}`);
  const message = "what a move has left on a host could not be looked after";
  const telling = { log, message, fields: ({ podId, nodeId }: LeftCopy) => ({ podId, nodeId }) };
  const asked: string[] = [];
  let released = 0;
  await eachByItself(left, telling, async (copy) => {
    const did = await db.transaction((tx) => clear(tx, copy, grace));
    if (did === "asked") asked.push(copy.nodeId);
    else if (did === "released") released += 1;
  });
  return { asked, released };
}

/** Copies about which something can be done now, by their claims `k`: a host can be asked, or one has answered. */
function selectLeft(grace: number): Sql {
  return sql`
    SELECT k.pod_id AS "podId", k.node_id AS "nodeId", k.generation, coalesce(p.node_id = k.node_id, false) AS "isHome", c.state AS "commandState", c.error_code AS "errorCode"
    FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id JOIN node_status s ON s.node_id = k.node_id
    LEFT JOIN LATERAL (
      SELECT * FROM node_commands o WHERE o.pod_id = k.pod_id AND o.node_id = k.node_id AND o.op = 'ensure_absent' AND o.task_id IS NULL
        AND o.generation >= k.generation ORDER BY o.id DESC LIMIT 1) AS c ON true
    CROSS JOIN LATERAL (
      SELECT count(*) AS tries FROM node_commands o WHERE o.pod_id = k.pod_id AND o.node_id = k.node_id AND o.op = 'ensure_absent' AND o.task_id IS NULL
        AND o.generation >= k.generation) AS past
    WHERE k.generation <> p.generation AND (p.node_id IS NOT NULL OR p.status = 'deleted')
      AND s.state IN ('online', 'degraded') AND s.session_connected
      -- Its own host has lost it: an operator may decide that the copy becomes the pod.
      AND (p.container_missing_since IS NULL OR p.status = 'deleted')
      AND NOT EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = k.pod_id AND m.state IN ('reserved', 'moving'))
      -- Its source had given the container up and was not seen to have it back: this may be all that there is.
      AND NOT EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = k.pod_id AND m.to_generation = k.generation
        AND m.source_freed_at IS NOT NULL AND m.switched_at IS NULL AND p.status <> 'deleted'
        AND (p.observed_power = 'unknown' OR p.observed_at IS NULL OR p.observed_at <= m.ended_at))
      -- Of a pod that has come home there is no stale copy any more that the grace could keep.
      AND (p.node_id IS NOT DISTINCT FROM k.node_id OR NOT EXISTS (SELECT FROM cloud_pod_moves m
        WHERE m.pod_id = k.pod_id AND m.from_generation = k.generation AND m.purpose = 'evacuate' AND s.state_since > now() - ${grace} * interval '1 ms'))
      AND (c.id IS NULL OR c.state = 'succeeded'
        OR c.finished_at < now() - ${pauseAfter(sql`past.tries - 1`)}
        OR c.error_code IN ('VMID_CONFLICT', 'ON_OTHER_NODE'))`;
}

/** @returns undefined when there is nothing to do any more */
async function clear(
  tx: Transaction,
  { podId, nodeId, generation }: LeftCopy,
  grace: number,
): Promise<"asked" | "released" | undefined> {
  const pod = await lockPodById(tx, podId);
  // Once more, now that nobody else decides about the pod: what was left may have become all that there is.
  const [copy] = await tx.query<LeftCopy>(
    sql`${selectLeft(grace)} AND k.pod_id = ${podId} AND k.node_id = ${nodeId} AND k.generation = ${generation}`,
  );
  if (copy === undefined) return undefined;
  if (copy.isHome || copy.commandState === "succeeded" || isNothingOfOurs(copy.errorCode ?? "")) {
    await releaseClaim(tx, podId, generation);
    return "released";
  }
  await askForRemoval(tx, pod, copy);
  return "asked";
}

/** One command at a time is open for a copy; what is never answered must not stand in the way of the next. */
async function giveUpSilent(db: Database): Promise<void> {
  const silent = await db.query<{ id: string }>(sql`
    SELECT c.id FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id AND k.generation <> p.generation
      JOIN node_commands c ON c.pod_id = k.pod_id AND c.node_id = k.node_id AND c.op = 'ensure_absent' AND c.task_id IS NULL
      JOIN node_status s ON s.node_id = c.node_id
    WHERE ${waitsInVain} LIMIT ${batchMax}`);
  for (const { id } of silent) await giveUpCommand(db, id);
}

async function askForRemoval(tx: Transaction, pod: Pod, { nodeId, generation }: LeftCopy): Promise<void> {
  const [row] = await tx.query<{ revision: bigint }>(sql`
    UPDATE cloud_pods SET revision = revision + 1 WHERE id = ${pod.id} RETURNING revision`);
  await insertCommand(tx, {
    nodeId,
    tenantId: pod.tenantId,
    podId: pod.id,
    vmid: pod.vmid,
    generation: pod.generation > generation ? pod.generation : generation,
    revision: row?.revision ?? pod.revision,
    timeoutMs: 600_000,
    op: { $case: "ensureAbsent", value: { volumes: [] } },
  });
}
