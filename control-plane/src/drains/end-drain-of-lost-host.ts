import { recordChange, type NodeChangeBy } from "../nodes/change-node.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { advanceDrain, changeDrainPod, selectDrains, type Drain } from "./drain.ts";
import { releaseFromDrain } from "./place-drain-pod.ts";

/**
 * A drain that is under way on a host that is given up ends at once: its moves need the host. Places that it keeps are
 * given back; moves that have begun end by their own rules, and the evacuation waits for them. Its driver, which may be
 * anywhere in between, finds it changed.
 *
 * Locks the drain, then its pods.
 */
export async function endDrainOfLostHost(tx: Transaction, nodeId: string, by: NodeChangeBy): Promise<void> {
  await tx.execute(
    sql`UPDATE node_drains SET version = version + 1 WHERE node_id = ${nodeId} AND finished_at IS NULL AND kind = 'drain'`,
  );
  const [drain] = await tx.query<Drain>(
    sql`${selectDrains} WHERE d.node_id = ${nodeId} AND d.finished_at IS NULL AND d.kind = 'drain'`,
  );
  if (drain === undefined) return;
  const pods = await tx.query<{ podId: string; state: string }>(sql`
    SELECT pod_id AS "podId", state FROM node_drain_pods WHERE drain_id = ${drain.id} AND state IN ('pending', 'claimed', 'moving') ORDER BY pod_id`);
  for (const { podId, state } of pods) {
    if (state === "claimed") await releaseFromDrain(tx, drain, podId, "left");
    else await changeDrainPod(tx, drain.id, podId, { state: "left" });
  }
  const outcome = "The host was given up while it was being emptied; its evacuation goes on.";
  await advanceDrain(tx, drain, "cancelled", outcome);
  await recordChange(tx, nodeId, by, {
    action: "node.drain-ended",
    kind: "DRAIN_ENDED",
    message: `cancelled: ${outcome}`,
    detail: { drainId: drain.id, state: "cancelled" },
  });
}
