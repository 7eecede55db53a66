import { sql } from "../platform/sql.ts";
import { aboveAllGenerations } from "../pods/next-generation.ts";
import { sendWish } from "../pods/command-steps.ts";
import type { Pod } from "../pods/pod.ts";
import type { FinishedCommand, OpenCommand, StepContext, StepOutcome } from "../tasks/saga.ts";
import { archiveOf, lookWish } from "./archive-steps.ts";
import type { UsableBackup } from "./backup.ts";
import { seesBackup } from "./backup-storage.ts";
import { lookAgainAfterMs, noteDamage, notSeen, notSeenMessage } from "./note-damage.ts";
import { lockBackupsOf } from "./take-back-retention.ts";

/** With the backoff of tasks half a minute to a minute. */
const looksAlone = 7;

/** What a host's look at a backup means for the work that is to use it. */
export type Verdict =
  | { readonly kind: "good" }
  /** Another host that should see it is asked as well. */
  | Extract<StepOutcome, { kind: "wait" }>
  /** Nobody else can be asked, and it may be a storage that is being mounted: the same host is asked again. */
  | Extract<StepOutcome, { kind: "retry" }>
  /** It is there, but the host that is to use it does not see it. */
  | { readonly kind: "unseen" }
  /** Nothing can be made from it; that is noted. */
  | { readonly kind: "damaged"; readonly isThere: boolean };

/**
 * Judges the answer of a host that a task has asked to read a backup to its end. Where the host that is to use it does not
 * find it, another one that sees the storage decides whether it is gone. What is damaged is noted as if it had been
 * found so by the weekly look: nobody takes it any more, and the next one is taken. The pod's row is locked.
 */
export async function judgeLook(
  { tx, task, now }: StepContext,
  pod: Pod,
  { backup, userNodeId }: { readonly backup: UsableBackup; readonly userNodeId: string },
  command: FinishedCommand,
): Promise<Verdict> {
  const isThere = archiveOf(command)?.found === true;
  const isGood = isThere && archiveOf(command)?.readable === true;
  const [asked] = await tx.query<{ nodeId: string }>(
    sql`SELECT node_id AS "nodeId" FROM node_commands WHERE id = ${command.id}`,
  );
  const isUser = asked?.nodeId === userNodeId;
  if (isGood) return isUser ? { kind: "good" } : { kind: "unseen" };
  if (isUser && !isThere) {
    const other = await findOther(tx, backup, userNodeId);
    if (other !== undefined) {
      const sent = await sendWish(tx, pod, task.id, lookWish(backup.volumeId), other);
      return { kind: "wait", ...sent, message: "Asking another host for the archive" };
    }
    const message = "The archive was not found, and no other host could be asked";
    if (task.attempts < looksAlone) return { kind: "retry", code: notSeen, message };
  }
  await lockBackupsOf(tx, pod.id);
  await noteDamage(tx, { ...backup, podName: pod.name, isThere }, now);
  if (!isThere) await lookAgainSoon(tx, backup.id, now);
  return { kind: "damaged", isThere };
}

/** The work could not wait for a second look; a week would be long for a backup whose storage was away for a moment. */
async function lookAgainSoon(tx: StepContext["tx"], backupId: string, now: Date): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_backups SET error_code = ${notSeen}, error_message = ${notSeenMessage},
      errand_after = ${new Date(now.getTime() + lookAgainAfterMs)} WHERE id = ${backupId}`);
}

/** A host besides the one that is to use a backup that sees its storage and answers. */
async function findOther(
  tx: StepContext["tx"],
  backup: UsableBackup,
  userNodeId: string,
): Promise<{ nodeId: string; generation: bigint } | undefined> {
  const [other] = await tx.query<{ nodeId: string; generation: bigint }>(sql`
    SELECT v.node_id AS "nodeId", ${aboveAllGenerations} AS generation
    FROM cloud_pod_backups b JOIN cloud_pods p ON p.id = b.pod_id, node_storages v JOIN node_status s ON s.node_id = v.node_id
    WHERE b.id = ${backup.id} AND v.node_id <> ${userNodeId} AND v.available AND ${seesBackup}
      AND s.state IN ('online', 'degraded') AND s.session_connected AND 'verify_backup' = ANY(s.capabilities)
    ORDER BY v.node_id LIMIT 1`);
  return other;
}

/** Whether another host was asked for a backup that answers no more: nothing is known of the archive then. */
export async function isOtherSilent(
  tx: StepContext["tx"],
  command: Pick<OpenCommand, "id">,
  userNodeId: string | null,
): Promise<boolean> {
  const silent = await tx.query(sql`
    SELECT FROM node_commands c JOIN node_status s ON s.node_id = c.node_id
    WHERE c.id = ${command.id} AND c.node_id <> ${userNodeId} AND s.state IN ('offline', 'lost', 'removed')`);
  return silent.length > 0;
}
