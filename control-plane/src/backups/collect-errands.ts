import { giveUpCommand, waitsInVain } from "../nodes/give-up-command.ts";
import type { Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql } from "../platform/sql.ts";
import { auditPruned } from "./audit-pruned.ts";
import { archiveOf } from "./archive-steps.ts";
import { lookAgainAfterMs, noteDamage, notSeen, notSeenMessage } from "./note-damage.ts";
import type { Errand, ErrandDoors } from "./send-errands.ts";
import { lockBackupsOf, takeBackRetention } from "./take-back-retention.ts";

/** What the answers of hosts were. */
export interface CollectReport {
  readonly pruned: number;
  readonly damaged: number;
  readonly failed: number;
}

/** How a command of an errand ended; `state` null: the command is gone. */
interface Answer {
  readonly id: string;
  readonly tenantId: string;
  readonly podId: string;
  readonly podName: string;
  readonly startedAt: Date;
  readonly errand: Errand;
  readonly damagedAt: Date | null;
  readonly errandAttempts: number;
  /** Of the errand before. */
  readonly formerErrorCode: string | null;
  readonly state: string | null;
  /** That was asked. */
  readonly nodeId: string | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly backup: unknown;
}

const batchMax = 200;
const againFirstMs = 60_000;
const againMaxMs = 6 * 3_600_000;

/**
 * Takes over what hosts have answered to errands. One that failed, or whose host is silent, is sent again, later each
 * time and to another host where there is one.
 */
export async function collectErrands({ db, log }: ErrandDoors, now: Date): Promise<CollectReport> {
  const silent = await db.query<{ commandId: string }>(sql`
    SELECT c.id AS "commandId" FROM cloud_pod_backups b JOIN node_commands c ON c.id = b.errand_command_id JOIN node_status s ON s.node_id = c.node_id
    WHERE ${waitsInVain} LIMIT ${batchMax}`);
  for (const { commandId } of silent) await giveUpCommand(db, commandId);
  const rows = await db.query<{ id: string }>(sql`
    SELECT b.id FROM cloud_pod_backups b LEFT JOIN node_commands c ON c.id = b.errand_command_id
    WHERE b.errand_command_id IS NOT NULL AND (c.id IS NULL OR c.finished_at IS NOT NULL) LIMIT ${batchMax}`);
  const report = { pruned: 0, damaged: 0, failed: 0 };
  const telling = {
    log,
    message: "the answer to an errand about an archive could not be taken over",
    fields: ({ id }: { id: string }) => ({ backupId: id }),
  };
  await eachByItself(rows, telling, async ({ id }) => {
    try {
      const what = await db.transaction((tx) => collect(tx, id, now));
      if (what !== undefined) report[what] += 1;
    } catch (error) {
      // Its place among those that are looked at is for others; it is asked for anew.
      await db.transaction((tx) => putOff(tx, id, now));
      report.failed += 1;
      throw error;
    }
  });
  return report;
}

async function putOff(tx: Transaction, id: string, now: Date): Promise<void> {
  const [errand] = await tx.query<{ errandAttempts: number }>(sql`
    SELECT errand_attempts AS "errandAttempts" FROM cloud_pod_backups WHERE id = ${id} AND errand IS NOT NULL FOR UPDATE`);
  if (errand === undefined) return;
  const error = { errorCode: "ANSWER_UNREADABLE", errorMessage: "The host's answer could not be taken over." };
  await tryAgain(tx, { id, nodeId: null, ...errand, ...error }, now);
}

async function collect(tx: Transaction, id: string, now: Date): Promise<keyof CollectReport | undefined> {
  const [known] = await tx.query<{ podId: string }>(
    sql`SELECT pod_id AS "podId" FROM cloud_pod_backups WHERE id = ${id}`,
  );
  if (known !== undefined) await lockBackupsOf(tx, known.podId);
  // A statement of its own: the next one sees the command that the row has then.
  await tx.query(sql`SELECT FROM cloud_pod_backups WHERE id = ${id} FOR UPDATE`);
  const [answer] = await tx.query<Answer>(sql`
    SELECT b.id, b.tenant_id AS "tenantId", b.pod_id AS "podId", p.name AS "podName", b.started_at AS "startedAt", b.errand, b.damaged_at AS "damagedAt",
      b.errand_attempts AS "errandAttempts", b.error_code AS "formerErrorCode", c.state, c.node_id AS "nodeId", c.error_code AS "errorCode", c.error_message AS "errorMessage", c.backup
    FROM cloud_pod_backups b JOIN cloud_pods p ON p.id = b.pod_id LEFT JOIN node_commands c ON c.id = b.errand_command_id
    WHERE b.id = ${id} AND b.errand IS NOT NULL AND (c.id IS NULL OR c.finished_at IS NOT NULL)`);
  if (answer === undefined) return undefined;
  const archive = answer.backup === null ? undefined : archiveOf(answer);
  if (answer.state !== "succeeded" || archive === undefined) {
    await tryAgain(tx, answer, now);
    return "failed";
  }
  if (answer.errand === "delete") {
    await markPruned(tx, answer, now);
    return "pruned";
  }
  if (!archive.found && answer.damagedAt === null && answer.formerErrorCode !== notSeen) {
    // One look is not believed. Until the next one it counts for nothing that others would go for.
    await takeBackRetention(tx, answer.podId);
    await tryAgain(tx, { ...answer, errorCode: notSeen, errorMessage: notSeenMessage }, now, lookAgainAfterMs);
    return "failed";
  }
  return await noteLook(tx, answer, archive.found && archive.readable, archive.found, now);
}

/** Why a backup failed; and that its archive was not found, which only a look that says what is there takes back or believes. */
const staysTold = sql`(state = 'failed' OR (errand = 'verify' AND error_code = ${notSeen}))`;

async function tryAgain(
  tx: Transaction,
  {
    id,
    nodeId,
    errandAttempts,
    errorCode,
    errorMessage,
  }: Pick<Answer, "id" | "nodeId" | "errandAttempts" | "errorCode" | "errorMessage">,
  now: Date,
  afterMs = Math.min(againMaxMs, againFirstMs * 2 ** Math.min(errandAttempts, 20)),
): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_backups SET errand = NULL, errand_command_id = NULL, errand_attempts = errand_attempts + 1,
      errand_after = ${new Date(now.getTime() + afterMs)}, errand_failed_node_id = ${nodeId}::uuid,
      error_code = CASE WHEN ${staysTold} THEN error_code ELSE coalesce(${errorCode}, 'COMMAND_LOST') END,
      error_message = CASE WHEN ${staysTold} THEN error_message ELSE ${errorMessage} END
    WHERE id = ${id}`);
}

async function markPruned(tx: Transaction, { id, tenantId, podId }: Answer, now: Date): Promise<void> {
  // A failed backup stays a failed one: nothing that ever counted is gone.
  await tx.execute(sql`
    UPDATE cloud_pod_backups SET state = CASE WHEN state = 'failed' THEN state ELSE 'pruned' END, pruned_at = ${now},
      error_code = CASE WHEN state = 'failed' THEN error_code END, error_message = CASE WHEN state = 'failed' THEN error_message END,
      errand = NULL, errand_command_id = NULL, errand_attempts = 0, errand_failed_node_id = NULL WHERE id = ${id}`);
  await auditPruned(tx, { id, tenantId }, { podId });
}

async function noteLook(
  tx: Transaction,
  answer: Answer,
  isGood: boolean,
  isThere: boolean,
  now: Date,
): Promise<"damaged" | undefined> {
  await tx.execute(sql`
    UPDATE cloud_pod_backups SET checked_at = ${now}, verified_at = CASE WHEN ${isGood} THEN ${now}::timestamptz ELSE verified_at END,
      damaged_at = CASE WHEN ${isGood} THEN NULL ELSE damaged_at END,
      error_code = NULL, error_message = NULL, errand = NULL, errand_command_id = NULL, errand_attempts = 0, errand_failed_node_id = NULL
    WHERE id = ${answer.id}`);
  if (isGood) return undefined;
  return (await noteDamage(tx, { ...answer, isThere }, now)) ? "damaged" : undefined;
}
